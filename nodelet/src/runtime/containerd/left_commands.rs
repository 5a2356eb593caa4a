//! Commands by containerd whose agent has ended, or given up on them.
//!
//! The runc shim opens a command's streams under the locks of its container, and waits up to 30 s for somebody at
//! their other ends. So long it tells nothing of the container, and runs no other command in it: a probe would fail
//! that has nothing to do with it. So there is always somebody, until containerd has forgotten the command.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::by_containerd::delete_process;
use super::client::Client;
use super::state::States;
use crate::runtime::ContainerId;

/// What the directory of a command is called: this, and something that no other has.
pub(super) const PREFIX: &str = "exec-";

/// The ends of a command's output. Nobody reads what comes.
pub(super) struct Ends {
    _open: Vec<File>,
}

/// A command that an agent before this one had.
pub(super) struct Left {
    id: ContainerId,
    exec_id: String,
    dir: PathBuf,
    _ends: Ends,
}

// === impl Ends ===

impl Ends {
    /// Opens them, below a command's directory.
    pub(super) fn open(dir: &Path) -> Self {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let open = ["stdout", "stderr"].map(|name| options.open(dir.join(name)));
        Self {
            _open: open.into_iter().flatten().collect(),
        }
    }
}

// === impl Left ===

impl Left {
    /// Those of all containers that containerd runs, their ends open.
    pub(super) fn find(states: &States) -> Vec<Self> {
        let mut found = Vec::new();
        for id in states.ids() {
            let state = states.of(&id);
            if !matches!(state.record(), Ok(Some(record)) if !record.shim) {
                continue;
            }
            let entries = fs::read_dir(state.dir()).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            found.extend(names.filter(|name| name.starts_with(PREFIX)).map(|name| {
                let dir = state.dir().join(&name);
                Self {
                    id: id.clone(),
                    exec_id: name,
                    _ends: Ends::open(&dir),
                    dir,
                }
            }));
        }
        found
    }

    /// Ends it, and removes what is left of it.
    pub(super) async fn end(self, client: &Client) {
        delete_process(client, self.id.0, self.exec_id).await;
        // What stays goes with the container.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
