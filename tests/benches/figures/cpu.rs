//! What the machine has spent on a process, and in all.

use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// How long a tick of the kernel's accounts is (`USER_HZ` is 100 on every Linux).
const TICK_MS: u64 = 10;

/// The CPU time of this process so far, in user and system mode together.
pub fn of_this_process() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The CPU time of another process, to the hundredth of a second.
pub fn of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().context("a malformed stat file")?;
    Ok(ticks(fields.split_whitespace().skip(11).take(2)))
}

/// The CPU time that all processes have taken, to the hundredth of a second.
pub fn of_all() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty stat file")?;
    // cpu user nice system idle iowait irq softirq
    let fields = line.split_whitespace().skip(1).take(7).enumerate();
    let busy = fields.filter(|(at, _)| ![3, 4].contains(at));
    Ok(ticks(busy.map(|(_, field)| field)))
}

fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * TICK_MS)
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: u64 = number.and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(kib * 1024)
}
