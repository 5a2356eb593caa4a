//! What processes use, and what others use beside them.

use std::process::Command;
use std::time::Duration;

/// Processor time and memory of some processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time so far, the kernel's work for them included.
    pub cpu: Duration,
    /// Memory that they hold (RSS), in bytes.
    pub resident: u64,
}

/// What processes use, summed. One that is gone counts nothing.
pub fn usage(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in pids {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let stat = read("stat").unwrap_or_default();
        // The name, in parentheses, may hold anything; user and system time are 12 and 13 after it.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.flat_map(str::parse::<u64>).sum();
        sum.cpu += Duration::from_millis(ticks * 10);
        let statm = read("statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        sum.resident += pages.unwrap_or(0u64) * 4096;
    }
    sum
}

/// Processor time that the whole machine has used so far.
pub fn machine() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6, 7].map(|at| ticks.get(at).copied().unwrap_or(0));
    Duration::from_millis(busy.iter().sum::<u64>() * 10)
}

/// Has the calling thread get a processor before others (`SCHED_FIFO`): what is measured is the network,
/// not how long the measuring threads, which need little of one, wait for it.
pub fn before_others() {
    let thread = nix::unistd::gettid().to_string();
    // Where that is not allowed, a loaded machine is seen in the figures.
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .output();
}
