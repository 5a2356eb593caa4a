//! The running instance as other commands see it: a lock that it holds, and a description.
//!
//! The lock is the truth (the kernel drops it with the process); the description is only read
//! while the lock is held.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Layout;

/// How long the kernel may take to clear a killed process away.
const DYING: Duration = Duration::from_secs(5);

/// What a running instance says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Process id.
    pub pid: i32,
    /// Version of the binary.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// Where the API server listens, host and port.
    pub listen: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The node's name.
    pub node: String,
    /// The node's InternalIP.
    pub node_ip: IpAddr,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// Whether that containerd was started by Peapod.
    pub private_containerd: bool,
    /// What the user should know: a changed firewall, a missing feature.
    pub warnings: Vec<String>,
}

/// Proof that this process is the instance of a data directory.
pub struct InstanceLock {
    lock: Flock<File>,
}

impl InstanceLock {
    /// Takes the lock; `None` when another process holds it.
    pub fn take(layout: &Layout) -> Result<Option<Self>> {
        Self::take_file(layout, &layout.lock())
    }

    /// Takes the lock of a part that runs apart.
    pub fn take_file(layout: &Layout, path: &Path) -> Result<Option<Self>> {
        let run = layout.run();
        std::fs::create_dir_all(&run)
            .with_context(|| format!("cannot create {}", run.display()))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { lock })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => {
                Err(errno).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

impl InstanceLock {
    /// Who the holder is among the candidates for a Lease. The next holder is the same: this one
    /// is dead then, and its lease need not run out first. Nobody else is: neither a copy of the
    /// data directory nor a machine of the same name.
    pub fn candidate(&self, address: SocketAddr) -> Result<String> {
        let file = self.lock.metadata().context("cannot look at the lock")?;
        let host = nix::unistd::gethostname().context("cannot read the host name")?;
        let what = format!("{address} {} {}", file.dev(), file.ino());
        let hash = Sha256::digest(what.as_bytes());
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}_{hash}", host.to_string_lossy()))
    }

    /// Writes the holder's process id into the lock's file, for whoever wants to end it.
    pub fn sign(&mut self) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock
            .write_all(std::process::id().to_string().as_bytes())
    }

    /// Who signed last.
    pub fn signer(path: &Path) -> Option<i32> {
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// Waits for the lock as long as `limit`; the kernel hands it over when its holder ends.
    pub fn wait(layout: &Layout, limit: Duration) -> Result<Option<Self>> {
        Self::wait_file(&layout.lock(), limit)
    }

    /// Waits for the lock of a part that runs apart.
    pub fn wait_file(path: &Path, limit: Duration) -> Result<Option<Self>> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let (tell, told) = std::sync::mpsc::channel();
        // A blocked flock cannot be given up, so it waits in a thread that may outlive us.
        std::thread::spawn(move || {
            let outcome = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
            // Nobody listens when the limit has passed; the lock is let go with its file.
            let _ = tell.send(outcome);
        });
        match told.recv_timeout(limit) {
            Ok(lock) => {
                let lock = lock.with_context(|| format!("cannot lock {}", path.display()))?;
                Ok(Some(Self { lock }))
            }
            Err(_) => Ok(None),
        }
    }
}

impl State {
    /// Whether containers run here: not with a server alone.
    pub fn has_node(&self) -> bool {
        !self.containerd.as_os_str().is_empty()
    }

    /// Writes the description, whole or not at all.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        super::settings::write_json(&layout.state(), self)
    }

    /// The instance that runs from this data directory, if one does.
    pub fn running(layout: &Layout) -> Result<Option<Self>> {
        if !layout.lock().exists() || InstanceLock::take(layout)?.is_some() {
            return Ok(None);
        }
        let state = Self::read(layout)?;
        // One that was just killed may hold the lock for a moment more, until its last thread ends.
        let ended = state.as_ref().is_some_and(|state| has_ended(state.pid));
        if ended && InstanceLock::wait(layout, DYING)?.is_some() {
            return Ok(None);
        }
        Ok(state)
    }

    /// The description last written, whether or not its process still runs.
    pub fn read(layout: &Layout) -> Result<Option<Self>> {
        super::settings::read_json(&layout.state())
    }
}

/// Whether a process is gone, or dead with some of its threads still to follow.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default().trim_start();
    after_name.is_empty() || after_name.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_has_ended() {
        assert!(!has_ended(std::process::id() as i32));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(pid), "nobody has its number now");
    }
}
