//! The recorder: events of pods, nodes and sessions go in, changes of placements come out.
//!
//! It is level-triggered: the same event twice changes nothing, so that after a restart events
//! may be told again, or everything that is there ([`Event::Present`]). It reads no clock; the
//! time of each event is an argument.

mod departures;
mod nodes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use peapod_api::net::{Arrival, Departure, PlacementLeaf, PlacementSpec};
use serde::{Deserialize, Serialize};

use super::facts::{Disruption, End, NodeFacts, PodFacts};
use departures::Departures;
use nodes::Node;

/// A placement that begins later than this after its pod was scheduled begins when it is seen.
const SEEN_LATE: SignedDuration = SignedDuration::from_secs(2);

/// How a pod ended that is gone without having been marked: it was deleted by force.
const DELETED: End = End::Deleting {
    disruption: Disruption::None,
    ended: false,
};

/// A placement, with what is kept of it beside what the API shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Counts placements from 1.
    #[serde(rename = "i")]
    pub id: u32,
    /// The pod's namespace.
    #[serde(rename = "n")]
    pub namespace: String,
    /// Which start of the node's machine it belongs to.
    #[serde(rename = "o", default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// UID of the pod's controller.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub controller: String,
    /// What the API shows.
    #[serde(rename = "p")]
    pub spec: PlacementSpec,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pod is new or changed.
    Pod(PodFacts),
    /// A pod is gone: its last state.
    PodGone(PodFacts),
    /// A node is new or changed.
    Node(NodeFacts),
    /// A node is gone.
    NodeGone(String),
    /// The leaves that a node has sessions with now.
    Leaves(String, Vec<PlacementLeaf>),
    /// The UIDs of all pods there are, after each was told: who is not among them is gone.
    Present(BTreeSet<String>),
    /// Nothing but the time.
    Tick,
}

/// The state of the recorder.
#[derive(Debug, Default)]
pub struct Recorder {
    last_id: u32,
    /// The placements without an end, by the pod's UID.
    open: BTreeMap<String, Kept>,
    nodes: HashMap<String, Node>,
    departures: Departures,
    /// Whether everything that was there at the start has been told.
    caught_up: bool,
}

// === impl Recorder ===

impl Recorder {
    /// A recorder that goes on where another ended: the placements without an end, and the
    /// newest id that was given.
    pub fn restore(open: impl IntoIterator<Item = Kept>, last_id: u32) -> Self {
        let open = open.into_iter();
        Self {
            last_id,
            open: open.map(|kept| (kept.spec.pod_uid.clone(), kept)).collect(),
            ..Self::default()
        }
    }

    /// Says that from here on events are news, not what was there before.
    pub fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// Whether a pod has a placement without an end.
    pub fn has(&self, uid: &str) -> bool {
        self.open.contains_key(uid)
    }

    /// How many placements have no end.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes in an event; the result is the placements that are new or changed, in order.
    pub fn take(&mut self, event: Event, at: Timestamp) -> Vec<Kept> {
        let mut out = self.settle(at);
        match event {
            Event::Pod(pod) => self.pod(pod, at, &mut out),
            Event::PodGone(pod) => self.pod_gone(pod, at, &mut out),
            Event::Node(facts) => self.node(facts, at, &mut out),
            Event::NodeGone(name) => {
                self.nodes.remove(&name);
            }
            Event::Leaves(node, leaves) => self.leaves(node, leaves, at),
            Event::Present(uids) => self.present(&uids, at, &mut out),
            Event::Tick => {}
        }
        out
    }

    /// When [`Event::Tick`] is due, if it is.
    pub fn deadline(&self) -> Option<Timestamp> {
        let waiting = self.nodes.values().filter_map(|node| node.next.as_ref());
        waiting.map(|(_, at)| *at).min()
    }

    fn pod(&mut self, pod: PodFacts, at: Timestamp, out: &mut Vec<Kept>) {
        if pod.node.is_empty() {
            return;
        }
        let pod = self.of_its_workload(pod);
        match (self.open.contains_key(&pod.uid), pod.end) {
            (true, Some(end @ (End::Completed | End::Failed { .. }))) => {
                let why = self.departure(&pod, end);
                self.departures.note(&pod, why, at);
                self.close(&pod.uid, why, None, at, out);
                self.departures.gone(&pod.uid);
            }
            // What has ended already has no place any more.
            (
                false,
                Some(End::Completed | End::Failed { .. } | End::Deleting { ended: true, .. }),
            ) => {}
            (true, end) => {
                if let Some(end) = end {
                    let why = self.departure(&pod, end);
                    self.departures.note(&pod, why, at);
                }
                self.refresh(&pod, at, out);
            }
            (false, end) => {
                self.begin(&pod, at, out);
                if let Some(end) = end {
                    let why = self.departure(&pod, end);
                    self.departures.note(&pod, why, at);
                }
            }
        }
    }

    fn begin(&mut self, pod: &PodFacts, at: Timestamp, out: &mut Vec<Kept>) {
        let replaced = self.departures.replaced(pod, at);
        let (reason, after, replaces) = match replaced {
            Some(left) => {
                let other = !left.controller.is_empty() && left.controller != pod.controller;
                let rolled = other && left.why == Departure::Deleted;
                let why = if rolled {
                    Departure::RolledOut
                } else {
                    left.why
                };
                let who = format!("{} on {}", left.name, left.node);
                (Arrival::Rescheduled, Some(why), Some(who))
            }
            None if self.caught_up => (Arrival::Scheduled, None, None),
            None => (Arrival::Observed, None, None),
        };
        let from = match pod.scheduled {
            Some(scheduled) if at.duration_since(scheduled) > SEEN_LATE => scheduled,
            _ => at,
        };
        let kept = Kept {
            id: 0,
            namespace: pod.namespace.clone(),
            boot: String::new(),
            controller: pod.controller.clone(),
            spec: PlacementSpec {
                pod_name: pod.name.clone(),
                pod_uid: pod.uid.clone(),
                workload: pod.workload.clone(),
                node: pod.node.clone(),
                addresses: pod.addresses.clone(),
                from: from.to_string(),
                reason,
                after,
                replaces,
                ..Default::default()
            },
        };
        self.begin_kept(kept, out);
    }

    /// Opens a placement with what is known of its node now.
    fn begin_kept(&mut self, mut kept: Kept, out: &mut Vec<Kept>) {
        self.last_id += 1;
        kept.id = self.last_id;
        if let Some(node) = self.nodes.get(&kept.spec.node) {
            kept.boot = node.facts.boot.clone();
            kept.spec.rack = node.facts.rack.clone();
            if let Some(leaves) = &node.leaves {
                kept.spec.leaves.clone_from(leaves);
            }
        }
        out.push(kept.clone());
        self.open.insert(kept.spec.pod_uid.clone(), kept);
    }

    /// Takes over addresses that are new; other addresses than before are another place.
    fn refresh(&mut self, pod: &PodFacts, at: Timestamp, out: &mut Vec<Kept>) {
        let Some(kept) = self.open.get_mut(&pod.uid) else {
            return;
        };
        if pod.addresses.is_empty() || kept.spec.addresses == pod.addresses {
            return;
        }
        let more = kept
            .spec
            .addresses
            .iter()
            .all(|one| pod.addresses.contains(one));
        if more {
            kept.spec.addresses = pod.addresses.clone();
            out.push(kept.clone());
            return;
        }
        let why = (Arrival::AddressChanged, Departure::AddressChanged);
        self.moved(&pod.uid, why, None, at, out);
        if let Some(kept) = self.open.get_mut(&pod.uid) {
            kept.spec.addresses = pod.addresses.clone();
            if let Some(last) = out.last_mut() {
                *last = kept.clone();
            }
        }
    }

    /// The workload is the one that it was when the pod came: its owners may be gone by now.
    fn of_its_workload(&self, mut pod: PodFacts) -> PodFacts {
        if let Some(kept) = self.open.get(&pod.uid) {
            pod.workload.clone_from(&kept.spec.workload);
            pod.controller.clone_from(&kept.controller);
        }
        pod
    }

    fn pod_gone(&mut self, pod: PodFacts, at: Timestamp, out: &mut Vec<Kept>) {
        if !self.open.contains_key(&pod.uid) {
            return;
        }
        let pod = &self.of_its_workload(pod);
        let why = self.departure(pod, pod.end.unwrap_or(DELETED));
        self.departures.note(pod, why, at);
        self.close(&pod.uid, why, None, at, out);
        self.departures.gone(&pod.uid);
    }

    fn close(
        &mut self,
        uid: &str,
        why: Departure,
        message: Option<String>,
        at: Timestamp,
        out: &mut Vec<Kept>,
    ) {
        if let Some(mut kept) = self.open.remove(uid) {
            kept.spec.to = Some(at.to_string());
            kept.spec.end_reason = Some(why);
            kept.spec.message = message;
            out.push(kept);
        }
    }

    /// Ends a placement and begins the next of the same pod.
    fn moved(
        &mut self,
        uid: &str,
        (arrival, departure): (Arrival, Departure),
        message: Option<String>,
        at: Timestamp,
        out: &mut Vec<Kept>,
    ) {
        let Some(mut kept) = self.open.get(uid).cloned() else {
            return;
        };
        self.close(uid, departure, message, at, out);
        kept.spec = PlacementSpec {
            from: at.to_string(),
            reason: arrival,
            after: None,
            replaces: None,
            ..kept.spec
        };
        self.begin_kept(kept, out);
    }

    fn present(&mut self, uids: &BTreeSet<String>, at: Timestamp, out: &mut Vec<Kept>) {
        let gone = self.open.keys().filter(|uid| !uids.contains(*uid));
        for uid in gone.cloned().collect::<Vec<_>>() {
            self.close(&uid, Departure::Unobserved, None, at, out);
            self.departures.gone(&uid);
        }
    }

    fn departure(&self, pod: &PodFacts, end: End) -> Departure {
        let node = self.nodes.get(&pod.node).map(|node| &node.facts);
        let lost = node.is_none_or(|node| !node.ready);
        let cordoned = node.is_some_and(|node| node.cordoned);
        let disrupted = |disruption, otherwise| match disruption {
            Disruption::Eviction if cordoned => Departure::Drained,
            Disruption::Eviction => Departure::Evicted,
            Disruption::Preemption => Departure::Preempted,
            Disruption::Taint if lost => Departure::NodeLost,
            Disruption::Taint => Departure::Evicted,
            Disruption::Collected => Departure::NodeLost,
            Disruption::Kubelet => Departure::NodePressure,
            Disruption::None => otherwise,
        };
        match end {
            End::Completed => Departure::Completed,
            End::Failed { pressure: true, .. } => Departure::NodePressure,
            End::Failed { disruption, .. } => disrupted(disruption, Departure::Failed),
            End::Deleting { disruption, .. } => disrupted(disruption, Departure::Deleted),
        }
    }
}
