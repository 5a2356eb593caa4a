//! The pods that left, or are about to, for those that replace them.

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use peapod_api::net::Departure;

use crate::placements::facts::PodFacts;

/// For how long a new pod may be the replacement of one that left.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Most departures of one workload that wait for a replacement.
const DEPARTURES_MAX: usize = 64;
/// Most workloads with such departures.
const WORKLOADS_MAX: usize = 10_000;

/// What is remembered of departures, within bounds.
#[derive(Debug, Default)]
pub struct Departures {
    /// By the workload, the oldest first.
    waiting: HashMap<String, VecDeque<Left>>,
    /// UIDs of pods that have a place still and were among the departures.
    leaving: BTreeSet<String>,
}

/// A pod that left, or is about to, and has no replacement yet.
#[derive(Clone, Debug)]
pub struct Left {
    pub uid: String,
    pub name: String,
    pub node: String,
    pub controller: String,
    pub why: Departure,
    pub at: Timestamp,
}

// === impl Departures ===

impl Departures {
    /// Remembers that a pod leaves, for the one that replaces it: controllers make that one
    /// before the old one is gone.
    pub fn note(&mut self, pod: &PodFacts, why: Departure, at: Timestamp) {
        if why == Departure::Completed || pod.workload.starts_with("Pod/") {
            return;
        }
        // Once: its replacement may have come before it is gone.
        if !self.leaving.insert(pod.uid.clone()) {
            return;
        }
        let key = format!("{}/{}", pod.namespace, pod.workload);
        if self.waiting.len() >= WORKLOADS_MAX && !self.waiting.contains_key(&key) {
            let recent = |left: &Left| at.duration_since(left.at) <= REPLACED_WITHIN;
            self.waiting.retain(|_, queue| queue.iter().any(recent));
            if self.waiting.len() >= WORKLOADS_MAX {
                return;
            }
        }
        let queue = self.waiting.entry(key).or_default();
        if queue.len() == DEPARTURES_MAX {
            queue.pop_front();
        }
        queue.push_back(Left {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            node: pod.node.clone(),
            controller: pod.controller.clone(),
            why,
            at,
        });
    }

    /// Says that a pod has no place any more.
    pub fn gone(&mut self, uid: &str) {
        self.leaving.remove(uid);
    }

    /// The departure that a new pod makes up for: that of its own name first, then the oldest.
    pub fn replaced(&mut self, pod: &PodFacts, at: Timestamp) -> Option<Left> {
        let key = format!("{}/{}", pod.namespace, pod.workload);
        let queue = self.waiting.get_mut(&key)?;
        queue.retain(|left| at.duration_since(left.at) <= REPLACED_WITHIN && left.uid != pod.uid);
        let own = queue.iter().position(|left| left.name == pod.name);
        let found = queue.remove(own.unwrap_or(0));
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_bounded() {
        let mut departures = Departures::default();
        for nth in 0..3 * DEPARTURES_MAX {
            let pod = PodFacts {
                uid: format!("u{nth}"),
                namespace: "default".into(),
                name: format!("p{nth}"),
                workload: "Deployment/x".into(),
                node: "n1".into(),
                ..Default::default()
            };
            departures.note(&pod, Departure::Deleted, Timestamp::UNIX_EPOCH);
            departures.gone(&pod.uid);
        }
        assert!(departures.leaving.is_empty());
        let waiting = &departures.waiting["default/Deployment/x"];
        assert_eq!(waiting.len(), DEPARTURES_MAX);
        assert_eq!(waiting[0].name, format!("p{}", 2 * DEPARTURES_MAX));
    }
}
