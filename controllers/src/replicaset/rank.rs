//! Which pods go first when a ReplicaSet has too many.
//!
//! The order is documented at
//! <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset>.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::DELETION_COST;
use crate::common::pods;

/// What of a pod decides; the least goes first.
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// Pods on the same node: the more, the sooner it goes.
    crowd: Reverse<usize>,
    /// How long ready, in powers of two; the shorter, the sooner.
    ready_age: Option<Age>,
    restarts: Reverse<i32>,
    age: Age,
    uid: String,
}

/// An age as the logarithm of its nanoseconds, so that nearly equal ages are equal and the
/// choice among them is spread by uid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(i64);

impl Age {
    fn since(time: Option<Timestamp>, now: Timestamp) -> Self {
        let nanos = time.map_or(0, |time| now.as_nanosecond() - time.as_nanosecond());
        // A pod without a time is the youngest.
        Self(if nanos <= 0 {
            -1
        } else {
            i64::from(nanos.ilog2())
        })
    }
}

impl Rank {
    fn of(pod: &Pod, crowds: &HashMap<&str, usize>, now: Timestamp) -> Self {
        let node = pods::node_name(pod);
        let ready = pods::is_ready(pod);
        let annotations = pod.metadata.annotations.as_ref();
        let cost = annotations.and_then(|all| all.get(DELETION_COST)?.parse().ok());
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            assigned: !node.is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready,
            cost: cost.unwrap_or(0),
            crowd: Reverse(crowds.get(node).copied().unwrap_or(0)),
            ready_age: ready.then(|| Age::since(pods::ready_since(pod), now)),
            restarts: Reverse(restarts(pod)),
            age: Age::since(created, now),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(self.crowd.cmp(&other.crowd))
            .then(self.ready_age.cmp(&other.ready_age))
            .then(self.restarts.cmp(&other.restarts))
            .then(self.age.cmp(&other.age))
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

/// The restarts of the container that restarted most.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let counts = containers
        .unwrap_or_default()
        .iter()
        .map(|c| c.restart_count);
    counts.max().unwrap_or(0)
}

/// The `count` pods that go first.
pub fn first_to_go(
    active: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut crowds: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowds.entry(pods::node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<_> = active
        .into_iter()
        .map(|pod| (Rank::of(&pod, &crowds, now), pod))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.compare(b));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}
