//! Is a node heard of? Pure.
//!
//! <https://kubernetes.io/docs/concepts/architecture/nodes/#node-heartbeats>

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::conditions;

/// The conditions that a node agent posts, and that nobody knows when it is silent.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// A node that has never posted anything gets this much longer.
const STARTUP: Duration = Duration::from_secs(20);

/// The conditions of a node.
pub fn conditions(node: &Node) -> &[NodeCondition] {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

/// The state of the condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// `True`
    Ready,
    /// `False`
    NotReady,
    /// `Unknown`
    Unknown,
    /// Never posted.
    Missing,
}

/// What a node says of itself, or we of it.
pub fn readiness(node: &Node) -> Readiness {
    match conditions::find(conditions(node), "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("False") => Readiness::NotReady,
        Some(_) => Readiness::Unknown,
        None => Readiness::Missing,
    }
}

/// What follows from a node's silence.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// It was heard of lately; look again after this.
    Alive(Duration),
    /// It is silent, and its conditions say so.
    Silent,
    /// It is silent, and its conditions should become these.
    Lost(Vec<NodeCondition>),
}

/// Judges a node that was last heard of `silent_for` ago.
pub fn judge(node: &Node, silent_for: Duration, grace: Duration, now: Timestamp) -> Judgement {
    let grace = match readiness(node) {
        Readiness::Missing => grace + STARTUP,
        _ => grace,
    };
    if silent_for < grace {
        return Judgement::Alive(grace - silent_for);
    }
    let old = conditions(node);
    let mut new = old.to_vec();
    for kind in POSTED {
        let known = conditions::find(old, kind);
        if known.is_some_and(|known| known.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            ),
        };
        let heartbeat = match known {
            Some(known) => known.last_heartbeat_time.clone(),
            None => node.metadata.creation_timestamp.clone(),
        };
        let condition = NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        };
        conditions::set(&mut new, condition);
    }
    match new == old {
        true => Judgement::Silent,
        false => Judgement::Lost(new),
    }
}
