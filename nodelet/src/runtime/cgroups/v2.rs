//! cgroup v2: one hierarchy; a controller reaches the children of a group only where the
//! group's `subtree_control` names it.

use std::fs;
use std::path::Path;

use super::{absent, failed, number, numbers, write};
use crate::runtime::{Resources, Result, Stats};

/// The controllers that containers need, as far as the host has them.
const WANTED: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

pub(super) fn apply(root: &Path, group: &Path, resources: &Resources) -> Result<()> {
    let mut dir = root.to_path_buf();
    for part in group {
        enable_controllers(&dir)?;
        dir.push(part);
        if !dir.is_dir() {
            fs::create_dir(&dir).map_err(|error| failed("making", &dir, &error))?;
        }
    }
    enable_controllers(&dir)?;
    write_limits(&dir, resources)
}

/// Passes the host's controllers on to a group's children.
fn enable_controllers(dir: &Path) -> Result<()> {
    let words = |file: &str| {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (available, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    let missing: Vec<String> = WANTED
        .iter()
        .filter(|name| available.iter().any(|a| a == *name) && !enabled.iter().any(|e| e == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    write(dir, "cgroup.subtree_control", missing.join(" "))
}

fn write_limits(dir: &Path, resources: &Resources) -> Result<()> {
    if let Some(shares) = resources.cpu_shares {
        write(dir, "cpu.weight", weight_of(shares))?;
    }
    if resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some() {
        let quota = match resources.cpu_quota_us {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        write(
            dir,
            "cpu.max",
            format!("{quota} {}", resources.cpu_period_us.unwrap_or(100_000)),
        )?;
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        write(dir, "cpuset.cpus", cpus)?;
    }
    if let Some(limit) = resources.memory_limit_bytes {
        write(dir, "memory.max", limit_or_max(limit))?;
        if dir.join("memory.swap.max").exists() {
            write(dir, "memory.swap.max", if limit < 0 { "max" } else { "0" })?;
        }
    }
    if let Some(min) = resources.memory_min_bytes {
        write(dir, "memory.min", min)?;
    }
    if let Some(limit) = resources.pids_limit {
        write(dir, "pids.max", limit_or_max(limit))?;
    }
    for (size, bytes) in &resources.hugepages {
        write(dir, &format!("hugetlb.{size}.max"), bytes)?;
    }
    Ok(())
}

/// Shares (2-262144) as a weight (1-10000), by the linear formula that systemd and the OCI
/// runtimes use.
fn weight_of(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn limit_or_max(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

pub(super) fn stats(root: &Path, group: &Path) -> Result<Stats> {
    let dir = root.join(group);
    let usage = number(&dir.join("memory.current")).ok_or_else(|| absent(group))?;
    let memory = numbers(&dir.join("memory.stat"));
    let of = |key: &str| memory.get(key).copied().unwrap_or(0);
    let cpu = numbers(&dir.join("cpu.stat"));
    Ok(Stats {
        cpu_usage_ns: cpu.get("usage_usec").copied().unwrap_or(0) * 1_000,
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(of("inactive_file")),
        memory_rss_bytes: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        pids: number(&dir.join("pids.current")).unwrap_or(0),
    })
}

pub(super) fn oom_kills(root: &Path, group: &Path) -> u64 {
    numbers(&root.join(group).join("memory.events"))
        .get("oom_kill")
        .copied()
        .unwrap_or(0)
}
