//! What processes use, as the kernel counts it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process, and which program it runs.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

/// Every process whose command line says so.
pub fn find(wanted: impl Fn(&str) -> bool) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if wanted(&command) {
            found.push(Process { pid, command });
        }
    }
    Ok(found)
}

/// Processor time used so far, by all threads.
pub fn cpu(pid: i32) -> Result<Duration> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let after = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_secs_f64(
        (ticks(11) + ticks(12)) as f64 / per_second as f64,
    ))
}

/// Resident memory in bytes.
pub fn rss(pid: i32) -> Result<u64> {
    kilobytes(Path::new(&format!("/proc/{pid}/status")), "VmRSS:")
}

/// The part of the resident memory, in bytes, that is of no file.
pub fn data(pid: i32) -> Result<u64> {
    kilobytes(Path::new(&format!("/proc/{pid}/status")), "RssAnon:")
}

/// Proportional share of memory in bytes: shared pages are divided among those who share them.
pub fn pss(pid: i32) -> Result<u64> {
    kilobytes(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss:")
}

fn kilobytes(path: &Path, name: &str) -> Result<u64> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|v| v.parse::<u64>().ok());
    Ok(value.with_context(|| format!("{} has no {name}", path.display()))? * 1024)
}

/// Megabytes with one decimal.
pub fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
