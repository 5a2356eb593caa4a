//! Processes of this machine: those of containers, and whose they are.

use std::collections::HashMap;

use anyhow::{Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait;

/// The host's process of a pod's container that runs the demo or busybox.
pub fn of_pod(pod: &str) -> Result<i32> {
    let names = [format!("HOSTNAME={pod}\0"), format!("POD_NAME={pod}\0")];
    for pid in all()? {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment);
        let ours = program.ends_with("peapod-demo") || program.ends_with("busybox");
        if ours && names.iter().any(|name| environment.contains(name)) {
            return Ok(pid);
        }
    }
    bail!("no process of the pod {pod}")
}

/// Processes that have a text in their command line.
pub fn with_argument(text: &str) -> Result<Vec<i32>> {
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    Ok(all()?.into_iter().filter(has).collect())
}

/// These processes and everything that they have started, directly or not.
pub fn with_descendants(roots: &[i32]) -> Result<Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all()? {
        if let Some(parent) = stat(pid).and_then(|stat| stat.parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        for child in children.remove(&pid).unwrap_or_default() {
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    Ok(found)
}

/// Ends processes as a crash would, and waits until they are gone.
pub fn kill(pids: &[i32]) -> Result<()> {
    end(pids, Signal::SIGKILL)
}

/// Sends a signal that ends processes, and waits until they are gone.
pub fn end(pids: &[i32], with: Signal) -> Result<()> {
    for &pid in pids {
        match signal::kill(Pid::from_raw(pid), with) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => bail!("cannot signal {pid}: {errno}"),
        }
    }
    wait::until("processes to be gone", || {
        Ok(!pids.iter().any(|&pid| is_running(pid)))
    })
}

/// Whether a process still does something; one that nobody has reaped yet does not.
pub fn is_running(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

struct Stat {
    state: char,
    parent: Option<i32>,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok(),
    })
}

fn all() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect())
}
