//! cgroup v1: a hierarchy per controller.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{absent, failed, number, numbers, write};
use crate::runtime::{Resources, Result, Stats};

type Controllers = BTreeMap<String, PathBuf>;

/// The controllers in which a pod has a group of its own; in the others the OCI runtime makes what
/// containers need.
const LIMITING: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "hugetlb"];

/// The directories of a group in those of them that the host has; some share a mount.
pub(super) fn limiting(controllers: &Controllers, group: &Path) -> Vec<PathBuf> {
    let roots = LIMITING.iter().filter_map(|name| controllers.get(*name));
    roots.map(|root| root.join(group)).collect()
}

pub(super) fn apply(controllers: &Controllers, group: &Path, resources: &Resources) -> Result<()> {
    for name in LIMITING {
        let Some(root) = controllers.get(name) else {
            continue;
        };
        let dir = root.join(group);
        fs::create_dir_all(&dir).map_err(|error| failed("making", &dir, &error))?;
        match name {
            "cpu" => apply_cpu(&dir, resources)?,
            "memory" => apply_memory(&dir, resources)?,
            "pids" => {
                if let Some(limit) = resources.pids_limit {
                    write(&dir, "pids.max", limit_or_max(limit))?;
                }
            }
            "hugetlb" => {
                for (size, bytes) in &resources.hugepages {
                    write(&dir, &format!("hugetlb.{size}.limit_in_bytes"), bytes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn apply_cpu(dir: &Path, resources: &Resources) -> Result<()> {
    if let Some(shares) = resources.cpu_shares {
        write(dir, "cpu.shares", shares)?;
    }
    if let Some(period) = resources.cpu_period_us {
        write(dir, "cpu.cfs_period_us", period)?;
    }
    if let Some(quota) = resources.cpu_quota_us {
        write(dir, "cpu.cfs_quota_us", quota.max(-1))?;
    }
    Ok(())
}

/// Memory and swap together must never be less than memory: the order of writing depends on the
/// direction of the change.
fn apply_memory(dir: &Path, resources: &Resources) -> Result<()> {
    let Some(limit) = resources.memory_limit_bytes else {
        return Ok(());
    };
    let (memory, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let grows = number(&dir.join(memory)).is_some_and(|now| limit < 0 || limit as u64 > now);
    let has_swap = dir.join(swap).exists();
    if grows && has_swap {
        write(dir, swap, limit)?;
    }
    write(dir, memory, limit)?;
    if !grows && has_swap {
        write(dir, swap, limit)?;
    }
    Ok(())
}

fn limit_or_max(limit: i64) -> String {
    if limit <= 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

pub(super) fn stats(controllers: &Controllers, group: &Path) -> Result<Stats> {
    let dir = |name: &str| {
        controllers
            .get(name)
            .map(|root| root.join(group))
            .unwrap_or_default()
    };
    let memory = dir("memory");
    let usage = number(&memory.join("memory.usage_in_bytes")).ok_or_else(|| absent(group))?;
    let stat = numbers(&memory.join("memory.stat"));
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    Ok(Stats {
        cpu_usage_ns: number(&dir("cpuacct").join("cpuacct.usage")).unwrap_or(0),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(of("total_inactive_file")),
        memory_rss_bytes: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        pids: number(&dir("pids").join("pids.current")).unwrap_or(0),
    })
}

pub(super) fn oom_kills(controllers: &Controllers, group: &Path) -> u64 {
    let Some(root) = controllers.get("memory") else {
        return 0;
    };
    let control = numbers(&root.join(group).join("memory.oom_control"));
    control.get("oom_kill").copied().unwrap_or(0)
}
