//! The taints that a node's conditions ask for. Pure.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::conditions;
use peapod_api::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE};

use super::health::{self, Readiness};

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";
/// Conditions of trouble, and the taint of each.
const TROUBLE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// How many nodes of a failure domain are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Nodes that are ready.
    pub ready: usize,
    /// Nodes that are not.
    pub unready: usize,
}

impl Zone {
    /// Counts a node.
    pub fn count(&mut self, readiness: Readiness) {
        match readiness {
            Readiness::Ready => self.ready += 1,
            _ => self.unready += 1,
        }
    }

    /// Whether so many nodes fail together that the fault is likely between us and them, and
    /// moving their pods would do harm: all of them, or three and 55 %. (Upstream then evicts
    /// slowly in large clusters; here nothing is evicted.)
    fn is_disrupted(self) -> bool {
        let all = self.ready == 0 && self.unready > 0;
        all || (self.unready > 2 && self.unready * 100 >= (self.ready + self.unready) * 55)
    }
}

/// Whether pods may be evicted from the silent nodes of a zone, when the whole cluster counts
/// `all`.
pub fn may_evict(zone: Zone, all: Zone) -> bool {
    // One zone that fails as a whole is a failure of the zone; all of them, of the network.
    let zone_gone = zone.ready == 0 && zone.unready > 0;
    all.ready > 0 && (zone_gone || !zone.is_disrupted())
}

/// The taints that a node should have: those of others as they are, ours as its conditions say.
/// `evict`: whether pods may be told to leave; a taint that tells them so already stays.
pub fn wanted(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let old = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let not_ready = match health::readiness(node) {
        Readiness::NotReady => Some(TAINT_NOT_READY),
        Readiness::Unknown => Some(TAINT_UNREACHABLE),
        Readiness::Ready | Readiness::Missing => None,
    };
    if let Some(key) = not_ready {
        wanted.push((key, NO_SCHEDULE));
        if evict {
            wanted.push((key, NO_EXECUTE));
        }
    }
    let conditions = health::conditions(node);
    for (condition, key) in TROUBLE {
        if conditions::is_true(conditions, condition) {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((TAINT_UNSCHEDULABLE, NO_SCHEDULE));
    }
    let mut taints: Vec<Taint> = old
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.contains(&(&taint.key, &taint.effect)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

fn is_ours(taint: &Taint) -> bool {
    let of_readiness = [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&taint.key.as_str());
    let of_trouble = TROUBLE.iter().any(|(_, key)| *key == taint.key);
    match taint.effect.as_str() {
        NO_SCHEDULE => of_readiness || of_trouble || taint.key == TAINT_UNSCHEDULABLE,
        NO_EXECUTE => of_readiness,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};
    use crate::node::health::{Judgement, judge};
    use std::time::Duration;

    /// Nodes, each with the time since it was heard of as an annotation, and what becomes of
    /// their conditions and taints.
    fn run(input: &str) -> String {
        let now = now(input);
        let nodes: Vec<Node> = objects(input, "Node");
        let lines = nodes.into_iter().map(|mut node| {
            let name = node.metadata.name.clone().unwrap();
            let annotations = node.metadata.annotations.clone().unwrap_or_default();
            let silent = annotations["silent-seconds"].parse().unwrap();
            let silent = Duration::from_secs(silent);
            let judgement = match judge(&node, silent, Duration::from_secs(40), now) {
                Judgement::Alive(left) => format!("alive, look again in {left:?}"),
                Judgement::Silent => "silent".to_owned(),
                Judgement::Lost(conditions) => {
                    let shown = conditions.iter().map(|c| {
                        format!(
                            "{}={} {}",
                            c.type_,
                            c.status,
                            c.reason.as_deref().unwrap_or("")
                        )
                    });
                    let shown = shown.collect::<Vec<_>>().join(", ");
                    node.status.get_or_insert_default().conditions = Some(conditions);
                    format!("lost: {shown}")
                }
            };
            let taints = wanted(&node, true, now);
            let taints: Vec<_> = taints
                .iter()
                .map(|t| format!("{}:{}", t.key, t.effect))
                .collect();
            format!("{name}: {judgement}\n  taints: {}", taints.join(" "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("node", run);
    }

    #[test]
    fn nobody_is_evicted_when_the_network_fails() {
        let zone = |ready, unready| Zone { ready, unready };
        for (of_node, of_all, may) in [
            (zone(2, 1), zone(2, 1), true),
            (zone(0, 1), zone(0, 1), false),
            (zone(0, 3), zone(9, 3), true),
            (zone(0, 3), zone(0, 9), false),
            (zone(1, 3), zone(9, 3), false),
            (zone(1, 2), zone(1, 2), true),
        ] {
            assert_eq!(may_evict(of_node, of_all), may, "{of_node:?} of {of_all:?}");
        }
    }

    #[test]
    fn a_taint_keeps_the_time_it_was_added() {
        let node = serde_json::json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [
                {"key": TAINT_UNREACHABLE, "effect": "NoExecute", "timeAdded": "2025-01-01T00:00:00Z"},
            ]},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        });
        let node: Node = serde_json::from_value(node).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let taints = wanted(&node, true, now);
        let added: Vec<_> = taints
            .iter()
            .map(|t| t.time_added.as_ref().unwrap().0)
            .collect();
        assert_eq!(added, ["2025-01-01T00:00:00Z".parse().unwrap(), now]);
    }
}
