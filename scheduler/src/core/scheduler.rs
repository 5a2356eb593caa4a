//! The scheduler without its hands: inputs and the time go in, actions come out.
//!
//! A decided pod is *assumed*: it takes its place in the snapshot at once, so that the next
//! decision sees it, while the binding is still on its way. It is confirmed by the pod's own change
//! in the API, or taken back when the binding fails.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::decide::{Candidate, Diagnosis, decide};
use super::events::{Change, could_help};
use super::input::{Input, PodUpdate};
use super::preempt::{NoPreemption, Preemption, preempt};
use super::queue::{Counts, Pending, Queue};
use super::shape::Shape;
use super::snapshot::{Facts, Nomination, PodKey, Snapshot};
use super::volumes::Bind;

/// How long a decided pod waits for its claims to be bound.
pub const CLAIMS_TIMEOUT: Duration = Duration::from_secs(600);

/// Something to be done in the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Bind the pod to this node; answer with [`Input::Bound`] or [`Input::NotBound`].
    BindPod(Arc<Pending>, Arc<str>),
    /// Ask for these claims to be bound for a pod that goes to this node; answer only a failure.
    BindClaims(Arc<Pending>, Arc<str>, Vec<Bind>),
    /// Say that no node can take the pod, and why.
    Unschedulable(Arc<Pending>, String, Novelty),
    /// Delete these pods to make room for the pod on this node; answer failures with
    /// [`Input::NotPreempted`]. The last are pods that had hoped for the node.
    Preempt(Arc<Pending>, Preemption, Vec<PodKey>),
    /// No node is kept for the pod any more.
    Unnominate(Arc<Pending>),
    /// Say that the pod's gates hold it.
    Gated(Arc<Pending>),
}

/// Whether the same was said of the pod before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// It was not: the pod's condition has to be written.
    New,
    /// It was.
    Repeated,
}

/// A decided pod whose binding is on its way.
#[derive(Debug)]
struct Assumed {
    pod: Arc<Pending>,
    node: Arc<str>,
    binds: Vec<Bind>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Its claims are being bound.
    Claims,
    /// It is being bound.
    Binding,
    /// The API has bound it; its change is still to be seen.
    Bound,
}

/// The scheduler's whole state.
#[derive(Debug)]
pub struct Scheduler<R> {
    name: String,
    rng: R,
    snapshot: Snapshot,
    queue: Queue,
    assumed: HashMap<PodKey, Assumed>,
    /// Which of the assumed wait for their claims, and until when at the longest.
    waiting: BTreeMap<PodKey, Duration>,
    /// What was last said of a pod that waits.
    said: HashMap<PodKey, String>,
    last_shape: Arc<Shape>,
    actions: Vec<Action>,
}

impl<R: Rng> Scheduler<R> {
    /// An empty cluster; `name` is whose pods are scheduled.
    pub fn new(name: &str, rng: R) -> Self {
        Self {
            name: name.to_owned(),
            rng,
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            assumed: HashMap::new(),
            waiting: BTreeMap::new(),
            said: HashMap::new(),
            last_shape: Arc::default(),
            actions: Vec::new(),
        }
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Pod(pod) => self.pod(*pod, now),
            Input::PodGone(key) => self.forget(&key, now),
            Input::PodsAre(keys) => self.keep_pods(&keys, now),
            Input::Node(name, spec) => {
                if let Some(id) = self.snapshot.set_node(&name, *spec) {
                    self.wake(Change::Node(id), now);
                }
            }
            Input::NodeGone(name) => self.snapshot.remove_node(&name),
            Input::NodesAre(names) => self.keep_nodes(&names),
            Input::Claim(key, claim) => {
                set(&mut self.snapshot.volumes.claims, key, claim.map(|c| *c));
                self.wake(Change::Volumes, now);
                self.bind_when_claims_are_bound();
            }
            Input::Volume(name, volume) => {
                let volumes = &mut self.snapshot.volumes;
                volumes.reserved.remove(&name);
                match volume {
                    Some(volume) => drop(volumes.volumes.insert(name, *volume)),
                    None => drop(volumes.volumes.remove(&name)),
                }
                self.wake(Change::Volumes, now);
            }
            Input::Class(name, class) => {
                set(&mut self.snapshot.volumes.classes, name, class.map(|c| *c));
                self.wake(Change::Volumes, now);
            }
            Input::Limits(node, limits) => {
                set(&mut self.snapshot.volumes.drivers.limits, node, limits);
                self.wake(Change::Volumes, now);
            }
            Input::DriverTells(name, tells) => {
                let telling = &mut self.snapshot.volumes.drivers.telling;
                match tells {
                    true => drop(telling.insert(name)),
                    false => drop(telling.remove(&name)),
                }
                self.wake(Change::Volumes, now);
            }
            Input::Capacity(key, capacity) => {
                let capacities = &mut self.snapshot.volumes.drivers.capacities;
                set(capacities, key, capacity.map(|c| *c));
                self.wake(Change::Volumes, now);
            }
            Input::Namespace(name, labels) => {
                set(&mut self.snapshot.namespaces, name, labels.map(Arc::new));
                self.wake(Change::Namespace, now);
            }
            Input::Budget(key, budget) => match budget {
                Some(budget) => drop(self.snapshot.budgets.insert(key, budget)),
                None => drop(self.snapshot.budgets.remove(&key)),
            },
            Input::Bound(pod) => self.bound(&pod),
            Input::NotBound(pod) => {
                if self.is_assumed(&pod) {
                    self.take_back(&pod.key, now);
                }
            }
            Input::NotPreempted(key) => self.set_leaving(&key, false),
        }
    }

    /// Decides about the next pod in the queue, if there is one. Returns whether there was.
    pub fn step(&mut self, now: Duration) -> bool {
        let Some(pod) = self.queue.pop(now) else {
            return false;
        };
        match decide(candidate(&pod), &mut self.snapshot, &mut self.rng) {
            Ok(choice) => self.assume(pod.clone(), choice.node, choice.binds, now),
            Err(diagnosis) => self.reject(&pod, &diagnosis, now),
        }
        true
    }

    /// What is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Ends what has waited too long. Waits of the queue end when it is asked for its next pod.
    pub fn tick(&mut self, now: Duration) {
        let late = self.waiting.iter().filter(|(_, until)| **until <= now);
        for key in late.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.take_back(&key, now);
        }
    }

    /// When [`tick`](Self::tick) and [`step`](Self::step) have something to do next, if nothing
    /// else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let claims = self.waiting.values().copied();
        claims.chain(self.queue.next_deadline()).min()
    }

    /// How many pods wait where.
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// The cluster as it is known.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

// === pods ===

impl<R: Rng> Scheduler<R> {
    fn pod(&mut self, pod: PodUpdate, now: Duration) {
        if pod.terminal {
            return self.forget(&pod.key, now);
        }
        match &pod.node {
            Some(_) => self.placed(pod, now),
            None if pod.scheduler != self.name || pod.terminating => self.forget(&pod.key, now),
            None => self.pending(pod, now),
        }
    }

    fn placed(&mut self, pod: PodUpdate, now: Duration) {
        let key = pod.key.clone();
        self.queue.remove(&key);
        self.said.remove(&key);
        self.end_assumption(&key);
        let shape = self.shared(pod.shape);
        let facts = Facts {
            uid: pod.uid,
            priority: pod.priority,
            started: pod.started.unwrap_or(pod.created),
            terminating: pod.terminating,
        };
        let before = self.snapshot.pod(&key);
        let before = before.map(|p| self.snapshot.shape(p.shape).shape.clone());
        let node = pod.node.as_deref().unwrap_or_default();
        self.snapshot.place(&key, &shape, node, facts);
        self.unnominate(&key, now);
        if before.as_ref() != Some(&shape) {
            self.wake(Change::PodPlaced(&shape), now);
        }
    }

    fn pending(&mut self, pod: PodUpdate, now: Duration) {
        if let Some(assumed) = self.assumed.get(&pod.key) {
            if assumed.pod.uid == pod.uid {
                return;
            }
            self.forget(&pod.key, now);
        }
        let shape = self.shared(pod.shape);
        let pending = Pending {
            key: pod.key,
            uid: pod.uid,
            shape,
            priority: pod.priority,
            created: pod.created,
            nominated: pod.nominated,
            gates: pod.gates,
        };
        if !pending.gates.is_empty() {
            self.say_gated(&pending);
        }
        self.keep_nomination(&pending);
        self.queue.set(pending, now);
    }

    /// What an earlier run, or a stale cache, knew of a nomination is read from the pod.
    fn keep_nomination(&mut self, pod: &Pending) {
        if let Some(node) = &pod.nominated {
            let nomination = Nomination {
                node: Arc::from(node.as_str()),
                priority: pod.priority,
                shape: pod.shape.clone(),
            };
            let nominations = &mut self.snapshot.nominations;
            nominations.insert(pod.key.clone(), nomination);
        }
    }

    fn say_gated(&mut self, pod: &Pending) {
        let text = "gated".to_owned();
        if self.said.insert(pod.key.clone(), text.clone()) != Some(text) {
            self.actions.push(Action::Gated(Arc::new(pod.clone())));
        }
    }

    /// The pod is gone, has ended, or is none of ours.
    fn forget(&mut self, key: &str, now: Duration) {
        self.queue.remove(key);
        self.said.remove(key);
        self.end_assumption(key);
        self.unnominate(key, now);
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            self.wake(Change::PodLeft(placed.node, &shape), now);
        }
    }

    fn keep_pods(&mut self, keys: &HashSet<PodKey>, now: Duration) {
        // A binding on its way answers by itself whether its pod is still there.
        let under_way = |key: &PodKey| {
            let assumed = self.assumed.get(key);
            assumed.is_some_and(|a| a.stage != Stage::Bound)
        };
        let placed = self.snapshot.pods().map(|(key, _)| key);
        let known = placed.chain(self.queue.keys());
        let gone = known.filter(|key| !keys.contains(*key) && !under_way(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.forget(&key, now);
        }
    }

    fn keep_nodes(&mut self, names: &HashSet<String>) {
        let known = self.snapshot.node_names();
        let gone = known.filter(|name| !names.contains(&***name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.snapshot.remove_node(&name);
        }
    }

    /// One copy of a shape for all pods that have it: pods that are alike come together.
    fn shared(&mut self, shape: Shape) -> Arc<Shape> {
        if *self.last_shape != shape {
            self.last_shape = match self.snapshot.shared(&shape) {
                Some(known) => known,
                None => Arc::new(shape),
            };
        }
        self.last_shape.clone()
    }
}

// === decisions ===

impl<R: Rng> Scheduler<R> {
    fn assume(&mut self, pod: Arc<Pending>, node: Arc<str>, binds: Vec<Bind>, now: Duration) {
        let facts = Facts {
            uid: pod.uid.clone(),
            priority: pod.priority,
            started: pod.created,
            terminating: false,
        };
        self.snapshot.place(&pod.key, &pod.shape, &node, facts);
        self.snapshot.volumes.reserve(&binds);
        self.unnominate(&pod.key, now);
        let (action, stage) = if binds.is_empty() {
            (Action::BindPod(pod.clone(), node.clone()), Stage::Binding)
        } else {
            let action = Action::BindClaims(pod.clone(), node.clone(), binds.clone());
            let until = now + CLAIMS_TIMEOUT;
            self.waiting.insert(pod.key.clone(), until);
            (action, Stage::Claims)
        };
        self.actions.push(action);
        let assumed = Assumed {
            pod: pod.clone(),
            node,
            binds,
            stage,
        };
        self.assumed.insert(pod.key.clone(), assumed);
        self.wake(Change::PodPlaced(&pod.shape), now);
    }

    fn reject(&mut self, pod: &Arc<Pending>, diagnosis: &Diagnosis, now: Duration) {
        let mut message = diagnosis.to_string();
        if diagnosis.nodes > 0 {
            let (snapshot, rng) = (&mut self.snapshot, &mut self.rng);
            match preempt(candidate(pod), diagnosis, snapshot, rng) {
                Ok(preemption) => self.nominate(pod, preemption),
                Err(why) => {
                    message = format!("{message} {why}");
                    if why != NoPreemption::Awaiting && self.unnominate(&pod.key, now) {
                        self.actions.push(Action::Unnominate(pod.clone()));
                    }
                }
            }
        }
        let before = self.said.insert(pod.key.clone(), message.clone());
        let novelty = match before {
            Some(before) if before == message => Novelty::Repeated,
            _ => Novelty::New,
        };
        self.queue.park(&pod.key, diagnosis.plugins, now);
        let action = Action::Unschedulable(pod.clone(), message, novelty);
        self.actions.push(action);
    }

    /// Keeps the node for the pod, and has its victims go.
    fn nominate(&mut self, pod: &Arc<Pending>, preemption: Preemption) {
        for (victim, _) in &preemption.victims {
            self.set_leaving(victim, true);
        }
        let nominations = &mut self.snapshot.nominations;
        let disappointed = nominations
            .iter()
            .filter(|(_, other)| other.node == preemption.node && other.priority < pod.priority);
        let disappointed: Vec<PodKey> = disappointed.map(|(key, _)| key.clone()).collect();
        for key in &disappointed {
            nominations.remove(key);
        }
        let nomination = Nomination {
            node: preemption.node.clone(),
            priority: pod.priority,
            shape: pod.shape.clone(),
        };
        nominations.insert(pod.key.clone(), nomination);
        let action = Action::Preempt(pod.clone(), preemption, disappointed);
        self.actions.push(action);
    }

    /// Keeps a node for the pod no longer; others may have waited for what it would have taken.
    fn unnominate(&mut self, key: &str, now: Duration) -> bool {
        let Some(nomination) = self.snapshot.nominations.remove(key) else {
            return false;
        };
        if let Some(id) = self.snapshot.find_node(&nomination.node) {
            self.wake(Change::Node(id), now);
        }
        true
    }

    /// Notes that a pod is about to go, before its own change says so.
    fn set_leaving(&mut self, key: &PodKey, leaving: bool) {
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            let node = self.snapshot.node(placed.node).name.clone();
            let facts = Facts {
                terminating: leaving,
                ..placed.facts
            };
            self.snapshot.place(key, &shape, &node, facts);
        }
    }

    /// Whether it is this pod, and not a namesake, whose binding is on its way.
    fn is_assumed(&self, pod: &Pending) -> bool {
        let assumed = self.assumed.get(&pod.key);
        assumed.is_some_and(|assumed| assumed.pod.uid == pod.uid)
    }

    fn bound(&mut self, pod: &Pending) {
        if !self.is_assumed(pod) {
            return;
        }
        self.queue.remove(&pod.key);
        self.said.remove(&pod.key);
        if let Some(assumed) = self.assumed.get_mut(&pod.key) {
            assumed.stage = Stage::Bound;
        }
    }

    fn take_back(&mut self, key: &str, now: Duration) {
        if !self.end_assumption(key) {
            return;
        }
        self.queue.retry(key, now);
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            self.wake(Change::PodLeft(placed.node, &shape), now);
        }
    }

    /// Ends the assumption about a pod, confirmed or not. Returns whether there was one.
    fn end_assumption(&mut self, key: &str) -> bool {
        self.waiting.remove(key);
        let Some(assumed) = self.assumed.remove(key) else {
            return false;
        };
        self.snapshot.volumes.release(&assumed.binds);
        true
    }

    fn bind_when_claims_are_bound(&mut self) {
        let (volumes, assumed) = (&self.snapshot.volumes, &mut self.assumed);
        let actions = &mut self.actions;
        self.waiting.retain(|key, _| {
            let Some(pod) = assumed.get_mut(key) else {
                return false;
            };
            let claims = pod.binds.iter().map(|bind| match bind {
                Bind::To { claim, .. } | Bind::Provision { claim } => claim,
            });
            let bound = volumes.all_bound(claims);
            if bound {
                pod.stage = Stage::Binding;
                actions.push(Action::BindPod(pod.pod.clone(), pod.node.clone()));
            }
            !bound
        });
    }

    fn wake(&mut self, change: Change<'_>, now: Duration) {
        let snapshot = &self.snapshot;
        let helped = |pod: &Pending, by| could_help(change, pod, by, snapshot);
        self.queue.wake(now, helped);
    }
}

fn candidate(pod: &Pending) -> Candidate<'_> {
    Candidate {
        key: &pod.key,
        shape: &pod.shape,
        priority: pod.priority,
        nominated: pod.nominated.as_deref(),
    }
}

fn set<T>(map: &mut HashMap<String, T>, key: String, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
