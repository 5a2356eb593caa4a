//! How a node is: Ready, and what it is short of.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::k8s_openapi;

use super::facts::Left;
use crate::eviction::Shortage;

/// Less memory than this is pressure, bytes.
const MEMORY_LOW_BYTES: u64 = 100 << 20;
/// Less free disk than this part is pressure, percent: upstream's threshold ...
const DISK_LOW_PERCENT: u64 = 10;
/// ... but a tenth of a developer's large disk is room enough, so never more than this, bytes.
const DISK_LOW_BYTES: u64 = 1 << 30;
/// Fewer processes left than this is pressure.
const PIDS_LOW: u64 = 500;

/// What the conditions stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is left.
    pub left: Left,
    /// Why the node is not ready, sentence by sentence; empty if it is.
    pub faults: Vec<String>,
}

/// What the node is short of, the worst first: pods are evicted for it.
pub fn shortage(left: &Left) -> Option<Shortage> {
    memory(left).or_else(|| disk(left)).or_else(|| pids(left))
}

fn memory(left: &Left) -> Option<Shortage> {
    let (least, left) = (MEMORY_LOW_BYTES, left.memory_bytes);
    (left < least).then_some(Shortage::Memory { least, left })
}

fn disk(left: &Left) -> Option<Shortage> {
    let share = left.disk_size_bytes / 100 * DISK_LOW_PERCENT;
    let (least, left) = (share.min(DISK_LOW_BYTES), left.disk_bytes);
    (left < least).then_some(Shortage::Disk { least, left })
}

fn pids(left: &Left) -> Option<Shortage> {
    let (least, left) = (PIDS_LOW, left.pids);
    (left < least).then_some(Shortage::Pids { least, left })
}

/// The conditions, with every time set to now; their transition times are the caller's to keep.
pub fn conditions(health: &Health, now: Timestamp) -> Vec<NodeCondition> {
    let left = &health.left;
    let pressure = |kind: &str, low: bool, [ok, bad]: [[&str; 2]; 2]| {
        let ([reason, message], status) = if low { (bad, "True") } else { (ok, "False") };
        condition(kind, status, reason, message.to_owned(), now)
    };
    let ready = match health.faults.is_empty() {
        true => {
            let message = "kubelet is posting ready status".to_owned();
            condition("Ready", "True", "KubeletReady", message, now)
        }
        false => {
            let message = format!("[{}]", health.faults.join(", "));
            condition("Ready", "False", "KubeletNotReady", message, now)
        }
    };
    vec![
        pressure(
            "MemoryPressure",
            memory(left).is_some(),
            [
                [
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ],
                [
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ],
            ],
        ),
        pressure(
            "DiskPressure",
            disk(left).is_some(),
            [
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ],
        ),
        pressure(
            "PIDPressure",
            pids(left).is_some(),
            [
                [
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ],
                [
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                ],
            ],
        ),
        ready,
    ]
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(left: Left, faults: &[&str]) -> Vec<String> {
        let faults = faults.iter().map(|&fault| fault.to_owned()).collect();
        let all = conditions(&Health { left, faults }, Timestamp::UNIX_EPOCH);
        all.iter()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect()
    }

    #[test]
    fn pressure_and_faults() {
        let well = Left {
            memory_bytes: 1 << 30,
            disk_bytes: 50 << 30,
            disk_size_bytes: 1000 << 30,
            pids: 10_000,
        };
        assert_eq!(
            shown(well, &[]),
            [
                "MemoryPressure=False",
                "DiskPressure=False",
                "PIDPressure=False",
                "Ready=True"
            ]
        );
        let ill = Left {
            memory_bytes: 1,
            disk_bytes: 9,
            disk_size_bytes: 100,
            pids: 1,
        };
        assert_eq!(
            shown(ill, &["network plugin is not ready"]),
            [
                "MemoryPressure=True",
                "DiskPressure=True",
                "PIDPressure=True",
                "Ready=False"
            ]
        );
    }
}
