//! What the shim keeps of a container, in the container's directory:
//!
//! | file | written | says |
//! | --- | --- | --- |
//! | `task.json` | before it is started, and when it runs | what it is, and its process |
//! | `task-exit.json` | when it has ended | how |
//! | `pid`, `runtime.log` | by the OCI runtime | its process; what went wrong |
//!
//! Not synced: nothing of it outlives the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::{Exit, TaskSpec};

/// A container that was started, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What it is.
    pub spec: TaskSpec,
    /// Its first process; `None` while it is being started.
    pub process: Option<Process>,
}

/// A process, told from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
    /// Which start of the machine: the first digits of its boot ID.
    #[serde(default)]
    pub boot: u64,
}

// === impl Process ===

impl Process {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; field 22 is the 20th behind it.
        let start_ticks = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            pid,
            start_ticks,
            boot: u64::from_str_radix(boot.get(..8)?, 16).ok()?,
        })
    }
}

const TASK: &str = "task.json";
const EXIT: &str = "task-exit.json";

/// Remembers a container.
pub fn write_started(dir: &Path, started: &Started) -> io::Result<()> {
    write(&dir.join(TASK), started)
}

/// The container of a directory, if it has one.
pub fn started(dir: &Path) -> Option<Started> {
    read(&dir.join(TASK))
}

/// Remembers how it ended.
pub fn write_exit(dir: &Path, exit: &Exit) -> io::Result<()> {
    write(&dir.join(EXIT), exit)
}

/// How it ended, if it did.
pub fn exit(dir: &Path) -> Option<Exit> {
    read(&dir.join(EXIT))
}

/// Where the OCI runtime writes the number of the process.
pub fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
}

/// Where it writes what went wrong.
pub fn log_file(dir: &Path) -> PathBuf {
    dir.join("runtime.log")
}

/// What the OCI runtime wrote.
pub fn pid(dir: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(dir)).ok()?.trim().parse().ok()
}

/// Forgets a container; the directory is the agent's.
pub fn forget(dir: &Path) {
    for name in [TASK, EXIT, "pid", "runtime.log"] {
        let _ = fs::remove_file(dir.join(name));
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Appears whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(unfinished, path)
}
