//! The scheduler without its hands: inputs and the time go in, actions come out.
//!
//! A decided pod is *assumed*: it takes its place in the snapshot at once, so that the next
//! decision sees it, while the binding is still on its way. It is confirmed by the pod's own change
//! in the API, or taken back when the binding fails.

mod assumed;
mod pods;
mod verdict;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use self::assumed::Assumed;
pub use self::assumed::CLAIMS_TIMEOUT;
use super::decide::{Candidate, decide};
use super::events::{Change, could_help};
use super::input::Input;
use super::preempt::Preemption;
use super::queue::{Counts, Pending, Queue};
use super::shape::Shape;
use super::snapshot::{PodKey, Snapshot};
use super::volumes::Bind;

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

    /// Has pods tried again that a change could help.
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
