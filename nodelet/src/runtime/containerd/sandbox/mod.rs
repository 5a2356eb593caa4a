//! Sandboxes: the pinned namespaces, shared memory and cgroup of each pod.
//!
//! A sandbox is a directory, `sandboxes/UID`, with the namespaces mounted over the files `net`, `ipc`, `uts` and,
//! where the pod has one, `user` (its IDs in the file `ids`), the pod's `/dev/shm` mounted at `shm`, and
//! `sandbox.json`, written last. No process holds it, but for pods whose containers share their process IDs: those
//! have a [`reaper`], with its number in the file `reaper` and the namespace at `pid`. A reboot leaves the directory
//! and takes the mounts: then the sandbox is not alive.

mod namespaces;
mod paths;
mod sysctls;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

pub use self::paths::Paths;

use crate::runtime::users::{self, HostIds, Ranges};
use crate::runtime::{Error, NamespaceMode, Result, Sandbox, SandboxSpec, reaper, sys};
use crate::whole_file::write_json;

/// Size of a pod's `/dev/shm`, as the other runtimes have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// The sandboxes below one directory.
#[derive(Clone, Debug)]
pub struct Sandboxes {
    dir: PathBuf,
    ranges: Ranges,
    /// One pod at a time is given IDs.
    giving: Arc<Mutex<()>>,
}

// === impl Sandboxes ===

impl Sandboxes {
    /// The sandboxes below `dir`; those with user namespaces get their IDs from `ranges`.
    pub fn new(dir: PathBuf, ranges: Ranges) -> Self {
        Self {
            dir,
            ranges,
            giving: Arc::default(),
        }
    }

    /// The paths of a pod's sandbox.
    pub fn paths(&self, pod_uid: &str) -> Paths {
        Paths {
            dir: self.dir.join(pod_uid),
        }
    }

    /// Makes the sandbox, or gives the one that is there. Blocks for some milliseconds.
    pub fn create(&self, spec: &SandboxSpec, now: Timestamp) -> Result<Sandbox> {
        check(spec)?;
        match self.get(&spec.pod.uid)? {
            Some(sandbox) if sandbox.alive => return Ok(sandbox),
            _ => self.remove(&spec.pod.uid)?,
        }
        let paths = self.paths(&spec.pod.uid);
        let what = || {
            format!(
                "making the namespaces of pod {}/{}",
                spec.pod.namespace, spec.pod.name
            )
        };
        let failed = |error: io::Error| Error::Failed {
            what: what(),
            reason: error.to_string(),
        };
        fs::create_dir_all(&paths.dir).map_err(failed)?;
        let ids = match spec.own_users {
            true => Some(self.give_ids(&paths).map_err(failed)?),
            false => None,
        };
        namespaces::pin(spec, ids, &paths).map_err(failed)?;
        if spec.ipc != NamespaceMode::Host {
            let owner = ids.map_or(0, |ids| ids.first);
            let options = format!("{SHM_OPTIONS},uid={owner},gid={owner}");
            sys::mount_tmpfs(&paths.shm(), &options).map_err(failed)?;
        }
        let reaper = (spec.pid == NamespaceMode::Pod)
            .then(|| namespaces::start_reaper(spec, &paths))
            .transpose()
            .map_err(failed)?;
        let sandbox = Sandbox {
            spec: spec.clone(),
            ids,
            reaper,
            created_at: now,
            netns: (spec.network != NamespaceMode::Host).then(|| paths.net()),
            alive: true,
        };
        write_json(&paths.record(), &sandbox).map_err(failed)?;
        Ok(sandbox)
    }

    /// Gives a pod IDs that no other has, and notes it before anything else.
    fn give_ids(&self, paths: &Paths) -> io::Result<HostIds> {
        let missing = users::missing().or_else(|| users::closed(&self.dir));
        if let Some(why) = missing {
            return Err(io::Error::other(format!("hostUsers: false: {why}")));
        }
        let _turn = self.giving.lock();
        let mut used = Vec::new();
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let text = fs::read_to_string(entry.path().join("ids")).unwrap_or_default();
            used.extend(text.trim().parse::<u32>());
        }
        let none = || {
            let pods = self.ranges.pods;
            io::Error::other(format!(
                "hostUsers: false: all ranges of IDs are taken; there are {pods} on this node"
            ))
        };
        let ids = self.ranges.free(&used).ok_or_else(none)?;
        fs::write(paths.ids(), ids.first.to_string())?;
        Ok(ids)
    }

    /// Keeps what has changed of a sandbox.
    pub fn record(&self, sandbox: &Sandbox) -> Result<()> {
        let path = self.paths(&sandbox.spec.pod.uid).record();
        write_json(&path, sandbox).map_err(|error| Error::Failed {
            what: format!("writing {}", path.display()),
            reason: error.to_string(),
        })
    }

    /// One sandbox, if it was completed.
    pub fn get(&self, pod_uid: &str) -> Result<Option<Sandbox>> {
        let paths = self.paths(pod_uid);
        let text = match fs::read(paths.record()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&paths.record(), &error)),
        };
        let mut sandbox: Sandbox =
            serde_json::from_slice(&text).map_err(|error| unreadable(&paths.record(), &error))?;
        sandbox.alive = namespaces::is_alive(&sandbox.spec, &paths);
        Ok(Some(sandbox))
    }

    /// Every sandbox. One that a crash left half made is removed on the way: nobody was told of
    /// it.
    pub fn list(&self) -> Result<Vec<Sandbox>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.dir, &error)),
        };
        let mut sandboxes = Vec::new();
        for entry in entries.flatten() {
            let Ok(pod_uid) = entry.file_name().into_string() else {
                continue;
            };
            match self.get(&pod_uid) {
                Ok(Some(sandbox)) => sandboxes.push(sandbox),
                Ok(None) => self.remove(&pod_uid)?,
                Err(error) => {
                    tracing::warn!(pod.uid = pod_uid, %error, "removing a sandbox of which nothing is known");
                    self.remove(&pod_uid)?;
                }
            }
        }
        Ok(sandboxes)
    }

    /// Ends the shared PID namespace, unmounts the pinned namespaces and keeps the record, as a reboot
    /// leaves it.
    pub fn unpin(&self, pod_uid: &str) -> Result<()> {
        let paths = self.paths(pod_uid);
        if let Some(pid) = paths.reaper_pid() {
            reaper::kill(pid, &paths.pid()).map_err(|error| removal_failed(&paths, &error))?;
        }
        for mount in paths.mounts() {
            sys::unmount(&mount).map_err(|error| removal_failed(&paths, &error))?;
        }
        Ok(())
    }

    /// Unpins the namespaces and forgets the sandbox.
    pub fn remove(&self, pod_uid: &str) -> Result<()> {
        self.unpin(pod_uid)?;
        let paths = self.paths(pod_uid);
        match fs::remove_dir_all(&paths.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(removal_failed(&paths, &error))
            }
            _ => Ok(()),
        }
    }
}

/// The UID becomes a directory's name.
fn check(spec: &SandboxSpec) -> Result<()> {
    let uid = &spec.pod.uid;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if uid.is_empty() || uid.starts_with('.') || !uid.chars().all(plain) {
        return Err(Error::Invalid(format!("{uid:?} is no pod UID")));
    }
    if spec.hostname.len() > 64 {
        let hostname = &spec.hostname;
        return Err(Error::Invalid(format!(
            "the hostname {hostname} is longer than 64 bytes"
        )));
    }
    let shares = [spec.network, spec.ipc, spec.pid].contains(&NamespaceMode::Host);
    if spec.own_users && shares {
        return Err(Error::Invalid(
            "hostUsers: false cannot be combined with hostNetwork, hostPID or hostIPC".to_owned(),
        ));
    }
    spec.sysctls
        .keys()
        .try_for_each(|name| sysctls::path(name).map(drop))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Failed {
        what: format!("reading {}", path.display()),
        reason: error.to_string(),
    }
}

fn removal_failed(paths: &Paths, error: &io::Error) -> Error {
    Error::Failed {
        what: format!("removing the sandbox {}", paths.dir.display()),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
