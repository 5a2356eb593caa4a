//! What a container or pod may use, and what it uses.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Limits and weights, in the units of the kernel. `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight of CPU, 2-262144 (1024 for one CPU requested).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, in microseconds; negative for no limit.
    pub cpu_quota_us: Option<i64>,
    /// The period, in microseconds, 1000-1000000 (usually 100000).
    pub cpu_period_us: Option<u64>,
    /// CPUs to run on (`0-2,7`).
    pub cpuset_cpus: Option<String>,
    /// Memory limit in bytes; swap is not given on top.
    pub memory_limit_bytes: Option<i64>,
    /// Memory that is protected from reclaim, in bytes (cgroup v2 only).
    pub memory_min_bytes: Option<i64>,
    /// How many processes and threads.
    pub pids_limit: Option<i64>,
    /// Limits of huge pages by page size (`2MB`), in bytes.
    pub hugepages: BTreeMap<String, u64>,
}

// === impl Resources ===

impl Resources {
    /// Of each limit the wider one; what either does not set stays as it is.
    pub fn most(&self, other: &Self) -> Self {
        /// `None` and negative numbers are no limit.
        fn wider(one: Option<i64>, other: Option<i64>) -> Option<i64> {
            match (one?, other?) {
                (a, b) if a < 0 || b < 0 => Some(-1),
                (a, b) => Some(a.max(b)),
            }
        }
        Self {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: wider(self.cpu_quota_us, other.cpu_quota_us),
            memory_limit_bytes: wider(self.memory_limit_bytes, other.memory_limit_bytes),
            pids_limit: wider(self.pids_limit, other.pids_limit),
            ..other.clone()
        }
    }
}

/// What a container or pod uses, by its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time since it started, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory in use, with the page cache, in bytes.
    pub memory_usage_bytes: u64,
    /// Memory in use that cannot be reclaimed easily (usage less inactive file pages), in bytes.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that waited for the disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What something takes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the blocks that it has.
    pub bytes: u64,
    /// Files, directories, links ...
    pub inodes: u64,
}

impl Add for DiskUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl Sum for DiskUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
