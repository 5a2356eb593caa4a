//! The recorder: events of pods, nodes and sessions go in, changes of placements come out.
//!
//! It is level-triggered: the same event twice changes nothing, so that after a restart events
//! may be told again, or everything that is there ([`Event::Present`]). It reads no clock; the
//! time of each event is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use peapod_api::net::{Arrival, Departure, PlacementLeaf, PlacementSpec};
use serde::{Deserialize, Serialize};

use super::facts::{Disruption, End, NodeFacts, PodFacts};

/// How long a node's leaves must stay as they are before its placements say so: a flapping
/// session does not fill the log.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(5);
/// For how long a new pod may be the replacement of one that left.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Most departures of one workload that wait for a replacement.
const DEPARTURES_MAX: usize = 64;
/// Most workloads with such departures.
const WORKLOADS_MAX: usize = 10_000;
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
    departures: HashMap<String, VecDeque<Left>>,
    /// UIDs of pods that have a place still and were among the departures.
    leaving: BTreeSet<String>,
    /// Whether everything that was there at the start has been told.
    caught_up: bool,
}

#[derive(Debug, Default)]
struct Node {
    facts: NodeFacts,
    /// `None` until its sessions are heard of.
    leaves: Option<Vec<PlacementLeaf>>,
    /// Leaves that have yet to settle, and when they will have.
    next: Option<(Vec<PlacementLeaf>, Timestamp)>,
}

/// A pod that left, or is about to, and has no replacement yet.
#[derive(Clone, Debug)]
struct Left {
    uid: String,
    name: String,
    node: String,
    controller: String,
    why: Departure,
    at: Timestamp,
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
                self.leaving(&pod, why, at);
                self.close(&pod.uid, why, None, at, out);
                self.leaving.remove(&pod.uid);
            }
            // What has ended already has no place any more.
            (
                false,
                Some(End::Completed | End::Failed { .. } | End::Deleting { ended: true, .. }),
            ) => {}
            (true, end) => {
                if let Some(end) = end {
                    let why = self.departure(&pod, end);
                    self.leaving(&pod, why, at);
                }
                self.refresh(&pod, at, out);
            }
            (false, end) => {
                self.begin(&pod, at, out);
                if let Some(end) = end {
                    let why = self.departure(&pod, end);
                    self.leaving(&pod, why, at);
                }
            }
        }
    }

    fn begin(&mut self, pod: &PodFacts, at: Timestamp, out: &mut Vec<Kept>) {
        let replaced = self.replaced(pod, at);
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
        self.leaving(pod, why, at);
        self.close(&pod.uid, why, None, at, out);
        self.leaving.remove(&pod.uid);
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

    /// Remembers that a pod leaves, for the one that replaces it: controllers make that one
    /// before the old one is gone.
    fn leaving(&mut self, pod: &PodFacts, why: Departure, at: Timestamp) {
        if why == Departure::Completed || pod.workload.starts_with("Pod/") {
            return;
        }
        // Once: its replacement may have come before it is gone.
        if !self.leaving.insert(pod.uid.clone()) {
            return;
        }
        let key = format!("{}/{}", pod.namespace, pod.workload);
        if self.departures.len() >= WORKLOADS_MAX && !self.departures.contains_key(&key) {
            let recent = |left: &Left| at.duration_since(left.at) <= REPLACED_WITHIN;
            self.departures.retain(|_, queue| queue.iter().any(recent));
            if self.departures.len() >= WORKLOADS_MAX {
                return;
            }
        }
        let queue = self.departures.entry(key).or_default();
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

    /// The departure that a new pod makes up for: that of its own name first, then the oldest.
    fn replaced(&mut self, pod: &PodFacts, at: Timestamp) -> Option<Left> {
        let key = format!("{}/{}", pod.namespace, pod.workload);
        let queue = self.departures.get_mut(&key)?;
        queue.retain(|left| at.duration_since(left.at) <= REPLACED_WITHIN && left.uid != pod.uid);
        let own = queue.iter().position(|left| left.name == pod.name);
        let found = queue.remove(own.unwrap_or(0));
        if queue.is_empty() {
            self.departures.remove(&key);
        }
        found
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

    fn node(&mut self, facts: NodeFacts, at: Timestamp, out: &mut Vec<Kept>) {
        let name = facts.name.clone();
        let node = self.nodes.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut node.facts, facts);
        let (boot, rack) = (node.facts.boot.clone(), node.facts.rack.clone());
        // Nodes report often; what their pods' places depend on changes seldom.
        if before.name == name && (&before.boot, &before.rack) == (&boot, &rack) {
            return;
        }
        for uid in self.on_node(&name) {
            let Some(kept) = self.open.get_mut(&uid) else {
                continue;
            };
            if !boot.is_empty() && !kept.boot.is_empty() && kept.boot != boot {
                let why = (Arrival::NodeRestarted, Departure::NodeRestarted);
                self.moved(&uid, why, None, at, out);
            } else if (kept.boot.is_empty() && !boot.is_empty()) || kept.spec.rack != rack {
                kept.boot.clone_from(&boot);
                kept.spec.rack.clone_from(&rack);
                out.push(kept.clone());
            }
        }
    }

    fn on_node(&self, node: &str) -> Vec<String> {
        let on_it = self.open.iter().filter(|(_, kept)| kept.spec.node == node);
        on_it.map(|(uid, _)| uid.clone()).collect()
    }

    fn leaves(&mut self, name: String, leaves: Vec<PlacementLeaf>, at: Timestamp) {
        let node = self.nodes.entry(name).or_default();
        match &mut node.next {
            Some((waiting, _)) if *waiting == leaves => {}
            Some(_) if node.leaves.as_ref() == Some(&leaves) => node.next = None,
            Some(waiting) => *waiting = (leaves, at + SETTLE),
            None if node.leaves.as_ref() == Some(&leaves) => {}
            None => node.next = Some((leaves, at + SETTLE)),
        }
    }

    /// Makes the leaves that have settled those of the placements.
    fn settle(&mut self, at: Timestamp) -> Vec<Kept> {
        let mut out = Vec::new();
        let due = |node: &Node| node.next.as_ref().is_some_and(|(_, due)| *due <= at);
        let settled: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| due(node))
            .map(|(name, _)| name.clone())
            .collect();
        for name in settled {
            let node = self.nodes.entry(name.clone()).or_default();
            if let Some((leaves, _)) = node.next.take() {
                node.leaves = Some(leaves.clone());
                for uid in self.on_node(&name) {
                    self.settle_one(&uid, &leaves, at, &mut out);
                }
            }
        }
        out
    }

    fn settle_one(
        &mut self,
        uid: &str,
        leaves: &[PlacementLeaf],
        at: Timestamp,
        out: &mut Vec<Kept>,
    ) {
        let Some(kept) = self.open.get_mut(uid) else {
            return;
        };
        let before = &kept.spec.leaves;
        if before == leaves {
            return;
        }
        if before.is_empty() && kept.spec.reason != Arrival::LeafChanged {
            // The first that is heard of any: it was so all along.
            kept.spec.leaves = leaves.to_vec();
            out.push(kept.clone());
            return;
        }
        let names = |these: &[PlacementLeaf], others: &[PlacementLeaf]| {
            let only = these.iter().filter(|one| !others.contains(one));
            only.map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        let (lost, found) = (names(before, leaves), names(leaves, before));
        let said = [("lost", lost), ("found", found)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")));
        let message = said.collect::<Vec<_>>().join("; ");
        let why = (Arrival::LeafChanged, Departure::LeafChanged);
        self.moved(uid, why, Some(message), at, out);
    }

    fn present(&mut self, uids: &BTreeSet<String>, at: Timestamp, out: &mut Vec<Kept>) {
        let gone = self.open.keys().filter(|uid| !uids.contains(*uid));
        for uid in gone.cloned().collect::<Vec<_>>() {
            self.close(&uid, Departure::Unobserved, None, at, out);
            self.leaving.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a script: a line is an event, at its own second; what comes out is written below it.
    ///
    /// `pod UID NAME WORKLOAD NODE ADDRESS [end]`, `gone UID NAME WORKLOAD NODE [end]`,
    /// `node NAME BOOT [cordoned] [notready]`, `leaves NODE [NAME..]`, `present [UID..]`, `tick`.
    fn play(script: &str) -> String {
        let mut recorder = Recorder::default();
        let mut out = String::new();
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let mut words = line.split_whitespace();
            let second: i64 = words.next().unwrap().parse().unwrap();
            let at = Timestamp::from_second(second).unwrap();
            let words: Vec<&str> = words.collect();
            out.push_str(&format!("{line}\n"));
            if words[0] == "restart" {
                let (open, last) = (recorder.open.clone().into_values(), recorder.last_id);
                recorder = Recorder::restore(open, last);
                continue;
            }
            if words[0] == "caught-up" {
                recorder.caught_up();
                continue;
            }
            for kept in recorder.take(event(&words), at) {
                out.push_str(&format!("    {}\n", shown(&kept)));
            }
        }
        out
    }

    fn event(words: &[&str]) -> Event {
        let deleting = |disruption, ended| Some(End::Deleting { disruption, ended });
        let end = |word: Option<&&str>| match word {
            Some(&"evicted") => deleting(Disruption::Eviction, false),
            Some(&"preempted") => deleting(Disruption::Preemption, false),
            Some(&"tainted") => deleting(Disruption::Taint, false),
            Some(&"deleting") => deleting(Disruption::None, false),
            Some(&"ended") => deleting(Disruption::None, true),
            Some(&"done") => Some(End::Completed),
            _ => None,
        };
        let pod = |addresses: &str, end| PodFacts {
            uid: words[1].into(),
            namespace: "default".into(),
            name: words[2].into(),
            workload: words[3].split('@').next().unwrap().into(),
            controller: words[3].into(),
            node: if words[4] == "-" { "" } else { words[4] }.into(),
            addresses: addresses
                .split(',')
                .filter(|a| *a != "-")
                .map(str::to_owned)
                .collect(),
            scheduled: None,
            end,
        };
        match words[0] {
            "pod" => Event::Pod(pod(words[5], end(words.get(6)))),
            "gone" => Event::PodGone(pod("-", end(words.get(5)))),
            "node" => Event::Node(NodeFacts {
                name: words[1].into(),
                rack: Some("r1".into()),
                boot: words[2].into(),
                cordoned: words.contains(&"cordoned"),
                ready: !words.contains(&"notready"),
            }),
            "leaves" => Event::Leaves(
                words[1].into(),
                words[2..]
                    .iter()
                    .map(|name| PlacementLeaf {
                        name: (*name).into(),
                        interface: None,
                    })
                    .collect(),
            ),
            "present" => Event::Present(words[1..].iter().map(|uid| (*uid).into()).collect()),
            "tick" => Event::Tick,
            other => panic!("{other} is no event"),
        }
    }

    fn shown(kept: &Kept) -> String {
        let spec = &kept.spec;
        let second = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
        let leaves: Vec<_> = spec.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
        let mut text = format!(
            "#{} {} on {} [{}] via [{}] {}..{} {}",
            kept.id,
            spec.pod_name,
            spec.node,
            spec.addresses.join(","),
            leaves.join(","),
            second(&spec.from),
            spec.to
                .as_deref()
                .map_or(String::new(), |to| second(to).to_string()),
            spec.reason.word(),
        );
        if let (Some(after), Some(replaces)) = (spec.after, &spec.replaces) {
            text.push_str(&format!(" after {} of {replaces}", after.word()));
        }
        if let Some(end) = spec.end_reason {
            text.push_str(&format!(", left: {}", end.word()));
        }
        if let Some(message) = &spec.message {
            text.push_str(&format!(" ({message})"));
        }
        text
    }

    macro_rules! plays {
        ($name:ident) => {
            #[test]
            fn $name() {
                let case = concat!("src/placements/golden/", stringify!($name), ".txt");
                let text = std::fs::read_to_string(case).unwrap();
                let script: String = text
                    .lines()
                    .filter(|line| !line.starts_with("    "))
                    .map(|line| format!("{line}\n"))
                    .collect();
                let played = play(&script);
                if std::env::var_os("UPDATE_GOLDEN").is_some() {
                    std::fs::write(case, &played).unwrap();
                }
                assert_eq!(played, text, "UPDATE_GOLDEN=1 rewrites it");
            }
        };
    }

    plays!(replacements);
    plays!(nodes);
    plays!(addresses_and_leaves);
    plays!(restarts);

    #[test]
    fn departures_are_bounded() {
        let mut recorder = Recorder::default();
        let pods: Vec<PodFacts> = (0..3 * DEPARTURES_MAX)
            .map(|nth| PodFacts {
                uid: format!("u{nth}"),
                namespace: "default".into(),
                name: format!("p{nth}"),
                workload: "Deployment/x".into(),
                node: "n1".into(),
                ..Default::default()
            })
            .collect();
        for pod in &pods {
            recorder.take(Event::Pod(pod.clone()), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(recorder.open(), pods.len());
        for pod in pods {
            recorder.take(Event::PodGone(pod), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(recorder.open(), 0);
        assert_eq!(
            recorder.departures["default/Deployment/x"].len(),
            DEPARTURES_MAX
        );
    }
}
