//! How a node is: Ready, and what it is short of.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::k8s_openapi;

use crate::eviction::Pressure;

/// What the conditions stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What the node is short of.
    pub pressure: Pressure,
    /// Why the node is not ready, sentence by sentence; empty if it is.
    pub faults: Vec<String>,
}

/// The conditions, with every time set to now; their transition times are the caller's to keep.
pub fn conditions(health: &Health, now: Timestamp) -> Vec<NodeCondition> {
    let short = health.pressure;
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
            short.memory,
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
            short.disk,
            [
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ],
        ),
        pressure(
            "PIDPressure",
            short.pids,
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

    fn shown(pressure: Pressure, faults: &[&str]) -> Vec<String> {
        let faults = faults.iter().map(|&fault| fault.to_owned()).collect();
        let all = conditions(&Health { pressure, faults }, Timestamp::UNIX_EPOCH);
        all.iter()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect()
    }

    #[test]
    fn pressure_and_faults() {
        assert_eq!(
            shown(Pressure::default(), &[]),
            [
                "MemoryPressure=False",
                "DiskPressure=False",
                "PIDPressure=False",
                "Ready=True"
            ]
        );
        let all = Pressure {
            memory: true,
            disk: true,
            pids: true,
        };
        assert_eq!(
            shown(all, &["network plugin is not ready"]),
            [
                "MemoryPressure=True",
                "DiskPressure=True",
                "PIDPressure=True",
                "Ready=False"
            ]
        );
    }
}
