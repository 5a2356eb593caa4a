//! Where the parts of a sandbox are.

use std::fs;
use std::path::PathBuf;

/// Where the parts of one sandbox are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The sandbox's directory.
    pub(super) dir: PathBuf,
}

// === impl Paths ===

impl Paths {
    /// The network namespace.
    pub fn net(&self) -> PathBuf {
        self.dir.join("net")
    }

    /// The IPC namespace.
    pub fn ipc(&self) -> PathBuf {
        self.dir.join("ipc")
    }

    /// The UTS namespace.
    pub fn uts(&self) -> PathBuf {
        self.dir.join("uts")
    }

    /// The PID namespace.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// The user namespace.
    pub fn user(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// The pod's `/dev/shm`.
    pub fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }

    pub(super) fn record(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }

    pub(super) fn reaper(&self) -> PathBuf {
        self.dir.join("reaper")
    }

    pub(super) fn ids(&self) -> PathBuf {
        self.dir.join("ids")
    }

    pub(super) fn mounts(&self) -> [PathBuf; 6] {
        let namespaces = [self.net(), self.ipc(), self.uts(), self.pid(), self.user()];
        let [net, ipc, uts, pid, user] = namespaces;
        [net, ipc, uts, pid, user, self.shm()]
    }

    /// The first process of the PID namespace, by the file that names it.
    pub(super) fn reaper_pid(&self) -> Option<u32> {
        fs::read_to_string(self.reaper()).ok()?.parse().ok()
    }
}
