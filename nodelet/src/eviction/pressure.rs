//! Who goes when the node is short of something. Pure.
//!
//! As upstream's node-pressure eviction: first who uses more than it asked for, then the lower
//! priority, then who uses most beyond what it asked for.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

use crate::core::{qos, spec_of};
use crate::runtime::DiskUsage;

/// From this priority on a pod belongs to the system and is never evicted.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What the node is short of: the least that should be left, and what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Memory, bytes.
    Memory {
        /// The threshold.
        least: u64,
        /// What is available.
        left: u64,
    },
    /// Room on the disk of the data directory, bytes.
    Disk {
        /// The threshold.
        least: u64,
        /// What is available.
        left: u64,
    },
    /// Files on that disk or on that of images.
    Inodes {
        /// The threshold.
        least: u64,
        /// What is available.
        left: u64,
    },
    /// Process ids.
    Pids {
        /// The threshold.
        least: u64,
        /// What is available.
        left: u64,
    },
}

/// A pod that may go, with what it uses.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Memory that cannot be taken back easily.
    pub memory_bytes: u64,
    /// What it has on the disk.
    pub disk: DiskUsage,
    /// Processes and threads.
    pub pids: u64,
}

impl Shortage {
    /// The resource as requests and messages call it.
    fn resource(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Disk { .. } => "ephemeral-storage",
            Self::Inodes { .. } => "inodes",
            Self::Pids { .. } => "pids",
        }
    }

    /// Nobody can ask for it.
    fn is_of_nobody(self) -> bool {
        matches!(self, Self::Pids { .. } | Self::Inodes { .. })
    }

    fn used(self, by: &Candidate) -> u64 {
        match self {
            Self::Memory { .. } => by.memory_bytes,
            Self::Disk { .. } => by.disk.bytes,
            Self::Inodes { .. } => by.disk.inodes,
            Self::Pids { .. } => by.pids,
        }
    }

    /// What a pod asked for. Nobody asks for process ids.
    fn requested(self, by: &Candidate) -> u64 {
        let requests = qos::requests(spec_of(&by.pod));
        let amount = requests.get(self.resource()).map_or(0, |q| q.units());
        u64::try_from(amount).unwrap_or(0)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Memory { least, left }
        | Self::Disk { least, left }
        | Self::Inodes { least, left }
        | Self::Pids { least, left }) = *self;
        let resource = self.resource();
        let amount = |number: u64| match self {
            Self::Pids { .. } | Self::Inodes { .. } => number.to_string(),
            _ => text(number),
        };
        write!(
            f,
            "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
            amount(least),
            amount(left)
        )
    }
}

fn text(bytes: u64) -> String {
    Quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
        .to_text()
        .0
}

/// The index of the pod that goes first; `None` if none may.
pub fn choose(shortage: Shortage, candidates: &[&Candidate]) -> Option<usize> {
    let evictable = candidates.iter().enumerate().filter(|(_, candidate)| {
        let critical = |priority| priority >= SYSTEM_CRITICAL_PRIORITY;
        !spec_of(&candidate.pod).priority.is_some_and(critical)
    });
    let first = evictable.min_by_key(|(_, candidate)| {
        let (used, asked) = (shortage.used(candidate), shortage.requested(candidate));
        let by_request = !shortage.is_of_nobody();
        let within = by_request && used <= asked;
        let priority = spec_of(&candidate.pod).priority.unwrap_or(0);
        (
            within,
            priority,
            Reverse(i128::from(used) - i128::from(asked)),
        )
    });
    first.map(|(index, _)| index)
}

/// The sentence for the pod's status.
pub fn message(shortage: Shortage, chosen: &Candidate) -> String {
    let (used, asked) = (shortage.used(chosen), shortage.requested(chosen));
    if used <= asked || shortage.is_of_nobody() {
        return shortage.to_string();
    }
    let name = chosen.pod.metadata.name.as_deref().unwrap_or_default();
    let resource = shortage.resource();
    format!(
        "{shortage}Pod {name} was using {}, request is {}, has larger consumption of {resource}. ",
        text(used),
        text(asked)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MI: u64 = 1 << 20;

    fn candidate(name: &str, priority: i32, asked: u64, used: u64) -> Candidate {
        let resources = json!({"requests": {"memory": asked.to_string()}});
        let pod = json!({"metadata": {"name": name}, "spec": {
            "priority": priority, "containers": [{"name": "a", "resources": resources}]}});
        Candidate {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            memory_bytes: used,
            disk: DiskUsage::default(),
            pids: used / MI,
        }
    }

    fn order(shortage: Shortage, mut candidates: Vec<Candidate>) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(next) = choose(shortage, &candidates.iter().collect::<Vec<_>>()) {
            let gone = candidates.remove(next);
            names.push(gone.pod.metadata.name.clone().unwrap());
        }
        names
    }

    fn pods() -> Vec<Candidate> {
        vec![
            candidate("critical", SYSTEM_CRITICAL_PRIORITY, 0, 900 * MI),
            candidate("modest", 0, 500 * MI, 400 * MI),
            candidate("high", 1000, 0, 800 * MI),
            candidate("little", 0, 100 * MI, 110 * MI),
            candidate("greedy", 0, 100 * MI, 300 * MI),
        ]
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first() {
        let memory = Shortage::Memory {
            least: 100 * MI,
            left: 50 * MI,
        };
        assert_eq!(
            order(memory, pods()),
            ["greedy", "little", "high", "modest"]
        );
        assert_eq!(
            message(memory, &pods()[4]),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Pod greedy was using 300Mi, request is 100Mi, has larger consumption of memory. "
        );
        assert!(message(memory, &pods()[1]).ends_with("available: 50Mi. "));
    }

    #[test]
    fn who_has_most_files_goes_for_inodes() {
        let inodes = Shortage::Inodes {
            least: 1000,
            left: 10,
        };
        let with = |name: &str, bytes, inodes| Candidate {
            disk: DiskUsage { bytes, inodes },
            ..candidate(name, 0, 0, 0)
        };
        let pods = vec![with("large", 900 * MI, 3), with("many", MI, 90_000)];
        assert_eq!(order(inodes, pods), ["many", "large"]);
    }

    #[test]
    fn process_ids_are_nobodys_request() {
        let pids = Shortage::Pids {
            least: 500,
            left: 3,
        };
        assert_eq!(order(pids, pods()), ["modest", "greedy", "little", "high"]);
        assert_eq!(
            message(pids, &pods()[1]),
            "The node was low on resource: pids. Threshold quantity: 500, available: 3. "
        );
    }
}
