//! What we remember of each container beside containerd's own record: a directory per container.
//!
//! | file | written | says |
//! | --- | --- | --- |
//! | `record.json` | when it is made | everything that does not change |
//! | `stdin`, `stdout`, `stderr` | when it is made | fifos to the shim |
//! | `log.json` | when it is started | where its output goes |
//! | `rootfs`, `mounts/N` | when it is made, in a pod with a user namespace | its file system and volumes, mounted with shifted owners |
//! | `started` | when it has started | since when it runs |
//! | `exit.json` | when it has ended | how |
//!
//! They are not synced: after a power cut no container runs anyway, and a container that was started and
//! of whose end nothing is known has ended in the power cut.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use nix::sys::stat::Mode;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::logs::protocol::LogSpec;
use crate::runtime::{
    Container, ContainerId, ContainerSpec, ContainerState, Error, Exit, HostIds, Image, Result, sys,
};
use crate::whole_file::write_json;

/// What does not change in a container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it was made from.
    pub spec: ContainerSpec,
    /// The image's ID.
    pub image_id: String,
    /// The image's reference by digest.
    pub image_ref: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Its root file system, as containerd's snapshotter wants it mounted.
    pub rootfs: Vec<RootfsMount>,
    /// Its first process; commands run in it are like it.
    pub process: oci_spec::runtime::Process,
    /// OCI runtime.
    #[serde(default)]
    pub oci_runtime: String,
    /// Peapod's shim runs it, not containerd's.
    #[serde(default)]
    pub shim: bool,
    /// It has no PID namespace of its own.
    #[serde(default)]
    pub shares_pids: bool,
    /// The IDs of the host that its pod has, with a user namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<HostIds>,
}

/// A mount of the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMount {
    /// `overlay`, `bind` ...
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options.
    pub options: Vec<String>,
}

/// The directories below one directory.
#[derive(Clone, Debug)]
pub struct States {
    dir: PathBuf,
    records: Records,
}

/// Records that were read or written before: they do not change, and are looked at for each thing that is done
/// with a container.
type Records = Arc<Mutex<HashMap<ContainerId, Arc<Record>>>>;

/// One container's directory.
#[derive(Clone, Debug)]
pub struct State {
    id: ContainerId,
    dir: PathBuf,
    records: Records,
}

// === impl States ===

impl States {
    /// The directories below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            records: Records::default(),
        }
    }

    /// A container's directory.
    pub fn of(&self, id: &ContainerId) -> State {
        State {
            id: id.clone(),
            dir: self.dir.join(&id.0),
            records: self.records.clone(),
        }
    }

    /// Every container that has a directory.
    pub fn ids(&self) -> Vec<ContainerId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(ContainerId)
            .collect()
    }
}

// === impl State ===

impl State {
    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory with its fifos. What an earlier attempt left is overwritten.
    pub fn create(&self, record: &Arc<Record>) -> Result<()> {
        let make = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            for name in ["stdin", "stdout", "stderr"] {
                make_fifo(&self.dir.join(name))?;
            }
            write_json(&self.dir.join("record.json"), record.as_ref())
        };
        make().map_err(|error| self.failed(&error))?;
        self.records.lock().insert(self.id.clone(), record.clone());
        Ok(())
    }

    /// What does not change.
    pub fn record(&self) -> Result<Option<Arc<Record>>> {
        if let Some(known) = self.records.lock().get(&self.id) {
            return Ok(Some(known.clone()));
        }
        let record = self.read::<Record>("record.json")?.map(Arc::new);
        if let Some(record) = &record {
            self.records.lock().insert(self.id.clone(), record.clone());
        }
        Ok(record)
    }

    /// Notes that it has started.
    pub fn set_started(&self, at: Timestamp) -> Result<()> {
        write_json(&self.dir.join("started"), &at).map_err(|error| self.failed(&error))
    }

    /// When it started, if it did.
    pub fn started(&self) -> Result<Option<Timestamp>> {
        self.read("started")
    }

    /// Notes how it ended.
    pub fn set_exit(&self, exit: &Exit) -> Result<()> {
        write_json(&self.dir.join("exit.json"), exit).map_err(|error| self.failed(&error))
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Result<Option<Exit>> {
        self.read("exit.json")
    }

    /// Where its root file system is mounted with shifted owners.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Where its `number`th volume is.
    pub fn mount(&self, number: usize) -> PathBuf {
        self.dir.join("mounts").join(number.to_string())
    }

    /// Unmounts what is mounted in the directory.
    pub fn unmount(&self) -> Result<()> {
        let mounts = fs::read_dir(self.dir.join("mounts"));
        let volumes = mounts.into_iter().flatten().flatten();
        let mut all = volumes.map(|entry| entry.path()).chain([self.rootfs()]);
        all.try_for_each(|path| sys::unmount(&path))
            .map_err(|error| self.failed(&error))
    }

    /// Forgets the container.
    pub fn remove(&self) -> Result<()> {
        self.records.lock().remove(&self.id);
        self.unmount()?;
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    /// The fifo of this name, as the shim wants it: a path, or nothing.
    pub fn fifo(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// What the log writer needs to know.
    pub fn log_spec(&self, record: &Record) -> LogSpec {
        LogSpec {
            id: self.id.0.clone(),
            dir: self.dir.clone(),
            path: record.spec.log_path.clone(),
            tty: record.spec.tty,
        }
    }

    /// The container as the pod lifecycle sees it.
    pub fn container(&self, record: &Record, state: ContainerState) -> Container {
        let spec = &record.spec;
        Container {
            id: self.id.clone(),
            pod_uid: spec.pod_uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image_name.clone(),
            image_id: record.image_id.clone(),
            image_ref: record.image_ref.clone(),
            created_at: record.created_at,
            log_path: spec.log_path.clone(),
            labels: spec.labels.clone(),
            state,
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let text = match fs::read(self.dir.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            // A power cut can leave a file empty: as good as none.
            Err(error) => {
                tracing::warn!(container.id = %self.id, file = name, %error, "unreadable, ignored");
                Ok(None)
            }
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::Failed {
            what: format!(
                "keeping the state of container {} in {}",
                self.id,
                self.dir.display()
            ),
            reason: error.to_string(),
        }
    }
}

impl Record {
    /// The user of the host that its process is.
    pub fn owner(&self) -> u32 {
        let inside = self.process.user().uid();
        let outside = self.ids.and_then(|ids| ids.on_host(inside));
        outside.unwrap_or(inside)
    }

    /// What a new container is recorded as.
    pub fn new(
        spec: &ContainerSpec,
        image: &Image,
        cgroup: PathBuf,
        rootfs: Vec<RootfsMount>,
        process: oci_spec::runtime::Process,
        now: Timestamp,
    ) -> Self {
        let by_digest = image
            .references
            .iter()
            .find(|reference| reference.contains('@'));
        Self {
            spec: spec.clone(),
            image_id: image.id.clone(),
            image_ref: by_digest.unwrap_or(&image.id).clone(),
            created_at: now,
            cgroup,
            rootfs,
            process,
            oci_runtime: String::new(),
            shim: false,
            shares_pids: false,
            ids: None,
        }
    }
}

/// A fifo; the one that is there will do.
pub fn make_fifo(path: &Path) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
