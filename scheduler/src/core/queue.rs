//! Which pod is next.
//!
//! A pending pod is in one of five places: *gated* (it says that it must not be scheduled yet),
//! *active* (by priority, then by age), *backing off* after a failure, *parked* because no node can
//! take it until something changes, or *in flight* between being popped and its result. Time is
//! the caller's: a duration since some fixed moment.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::reason::Plugins;
use super::shape::Shape;
use super::snapshot::PodKey;

/// The back-off after the first failure; it doubles with each further one.
pub const BACKOFF: Duration = Duration::from_secs(1);
/// The longest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A parked pod is tried again after this long even when nothing seemed to help it.
pub const MAX_PARKED: Duration = Duration::from_secs(300);

/// A pod that waits for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `namespace/name`.
    pub key: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// What it asks for.
    pub shape: Arc<Shape>,
    /// Its priority.
    pub priority: i32,
    /// When it was created: seconds since the epoch.
    pub created: i64,
    /// The node that is being cleared for it.
    pub nominated: Option<String>,
    /// Its scheduling gates.
    pub gates: Vec<String>,
}

/// How many pods are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready to be popped.
    pub active: usize,
    /// Backing off.
    pub backoff: usize,
    /// Parked.
    pub unschedulable: usize,
    /// Gated.
    pub gated: usize,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<PodKey, Entry>,
    active: BTreeSet<(Rank, PodKey)>,
    backoff: BTreeSet<(Duration, PodKey)>,
    parked: BTreeSet<(Duration, PodKey)>,
    gated: usize,
    sequence: u64,
}

/// Higher priority first, then older, then earlier seen.
type Rank = (Reverse<i32>, i64, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<Pending>,
    place: Place,
    sequence: u64,
    failures: u32,
    failed_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Gated,
    Active,
    Backoff(Duration),
    Parked(Duration, Plugins),
    InFlight,
}

impl Entry {
    fn rank(&self) -> Rank {
        (Reverse(self.pod.priority), self.pod.created, self.sequence)
    }

    fn backoff_ends(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let length = match self.failures {
            0 => Duration::ZERO,
            _ => (BACKOFF * 2u32.pow(doublings)).min(MAX_BACKOFF),
        };
        self.failed_at + length
    }
}

// === impl Queue ===

impl Queue {
    /// Adds a pod, or takes note of its change. A parked pod whose demands changed is tried again.
    pub fn set(&mut self, pod: Pending, now: Duration) {
        let key = pod.key.clone();
        let gated = !pod.gates.is_empty();
        let Some(entry) = self.pods.get_mut(&key) else {
            self.sequence += 1;
            let entry = Entry {
                pod: Arc::new(pod),
                place: Place::InFlight,
                sequence: self.sequence,
                failures: 0,
                failed_at: Duration::ZERO,
            };
            self.pods.insert(key.clone(), entry);
            let place = if gated { Place::Gated } else { Place::Active };
            self.put(&key, place);
            return;
        };
        if *entry.pod == pod {
            return;
        }
        if entry.pod.uid != pod.uid {
            self.remove(&key);
            return self.set(pod, now);
        }
        let place = entry.place;
        let changed = entry.pod.shape != pod.shape || entry.pod.priority != pod.priority;
        self.take(&key);
        if let Some(entry) = self.pods.get_mut(&key) {
            entry.pod = Arc::new(pod);
        }
        match place {
            _ if gated => self.put(&key, Place::Gated),
            Place::Gated => self.put(&key, Place::Active),
            Place::Parked(..) if changed => self.enqueue(&key, now),
            place => self.put(&key, place),
        }
    }

    /// Forgets a pod: it is gone, or has a node.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Pending>> {
        self.take(key);
        self.pods.remove(key).map(|entry| entry.pod)
    }

    /// The next pod; it is in flight until it is removed, parked or retried.
    pub fn pop(&mut self, now: Duration) -> Option<Arc<Pending>> {
        self.end_waits(now);
        let (_, key) = self.active.first()?.clone();
        self.take(&key);
        self.put(&key, Place::InFlight);
        self.pods.get(&key).map(|entry| entry.pod.clone())
    }

    /// No node can take the pod, says who.
    pub fn park(&mut self, key: &str, rejected_by: Plugins, now: Duration) {
        self.fail(key, now, Place::Parked(now, rejected_by));
    }

    /// Something else failed: the pod is tried again after a back-off.
    pub fn retry(&mut self, key: &str, now: Duration) {
        self.fail(key, now, Place::InFlight);
        self.enqueue(key, now);
    }

    /// Tries the parked pods again that `helped` names.
    pub fn wake(&mut self, now: Duration, helped: impl Fn(&Pending, Plugins) -> bool) {
        let parked = self.parked.iter().map(|(_, key)| key);
        let woken = parked.filter(|key| match self.pods.get(*key) {
            Some(entry) => match entry.place {
                Place::Parked(_, plugins) => helped(&entry.pod, plugins),
                _ => false,
            },
            None => false,
        });
        for key in woken.cloned().collect::<Vec<_>>() {
            self.enqueue(&key, now);
        }
    }

    /// When a wait ends next.
    pub fn next_deadline(&self) -> Option<Duration> {
        let backoff = self.backoff.first().map(|(at, _)| *at);
        let parked = self.parked.first().map(|(since, _)| *since + MAX_PARKED);
        [backoff, parked].into_iter().flatten().min()
    }

    /// Whether a pod is ready.
    pub fn is_ready(&self) -> bool {
        !self.active.is_empty()
    }

    /// A pod that waits.
    pub fn get(&self, key: &str) -> Option<&Arc<Pending>> {
        self.pods.get(key).map(|entry| &entry.pod)
    }

    /// The names of all that wait.
    pub fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.pods.keys()
    }

    /// How many pods are where.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.parked.len(),
            gated: self.gated,
        }
    }

    fn end_waits(&mut self, now: Duration) {
        let parked = self.parked.iter();
        let parked = parked.take_while(|(since, _)| *since + MAX_PARKED <= now);
        let backoff = self.backoff.iter().take_while(|(at, _)| *at <= now);
        let ended: Vec<_> = parked.chain(backoff).map(|(_, key)| key.clone()).collect();
        for key in ended {
            self.take(&key);
            self.put(&key, Place::Active);
        }
    }

    fn fail(&mut self, key: &str, now: Duration, place: Place) {
        let Some(entry) = self.pods.get_mut(key) else {
            return;
        };
        entry.failures += 1;
        entry.failed_at = now;
        self.take(key);
        self.put(key, place);
    }

    /// Makes a pod active, after what is left of its back-off.
    fn enqueue(&mut self, key: &str, now: Duration) {
        let Some(entry) = self.pods.get(key) else {
            return;
        };
        let ends = entry.backoff_ends();
        self.take(key);
        if ends > now {
            self.put(key, Place::Backoff(ends));
        } else {
            self.put(key, Place::Active);
        }
    }

    fn put(&mut self, key: &str, place: Place) {
        let Some((key, entry)) = self.pods.get_key_value(key) else {
            return;
        };
        let (key, rank) = (key.clone(), entry.rank());
        match place {
            Place::Gated => self.gated += 1,
            Place::Active => drop(self.active.insert((rank, key.clone()))),
            Place::Backoff(at) => drop(self.backoff.insert((at, key.clone()))),
            Place::Parked(since, _) => drop(self.parked.insert((since, key.clone()))),
            Place::InFlight => {}
        }
        if let Some(entry) = self.pods.get_mut(&key) {
            entry.place = place;
        }
    }

    /// Takes a pod out of its place.
    fn take(&mut self, key: &str) {
        let Some((key, entry)) = self.pods.get_key_value(key) else {
            return;
        };
        let (key, rank) = (key.clone(), entry.rank());
        match entry.place {
            Place::Gated => self.gated -= 1,
            Place::Active => drop(self.active.remove(&(rank, key.clone()))),
            Place::Backoff(at) => drop(self.backoff.remove(&(at, key.clone()))),
            Place::Parked(since, _) => drop(self.parked.remove(&(since, key.clone()))),
            Place::InFlight => {}
        }
        if let Some(entry) = self.pods.get_mut(&key) {
            entry.place = Place::InFlight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::reason::Plugin;

    fn pod(name: &str, priority: i32) -> Pending {
        Pending {
            key: Arc::from(name),
            uid: Arc::from(format!("uid-{name}")),
            shape: Arc::default(),
            priority,
            created: 0,
            nominated: None,
            gates: Vec::new(),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pop(queue: &mut Queue, seconds: u64) -> Option<String> {
        queue.pop(at(seconds)).map(|pod| pod.key.to_string())
    }

    fn queue(names: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for name in names {
            queue.set(pod(name, 0), at(0));
        }
        queue
    }

    #[test]
    fn by_priority_then_by_arrival() {
        let mut queue = queue(&["first", "second"]);
        queue.set(pod("urgent", 10), at(0));
        for expected in ["urgent", "first", "second"] {
            assert_eq!(pop(&mut queue, 0).as_deref(), Some(expected));
        }
        assert_eq!(pop(&mut queue, 0), None);
    }

    #[test]
    fn back_off_doubles_up_to_ten_seconds() {
        let mut queue = queue(&["a"]);
        let mut now = 0;
        for wait in [1, 2, 4, 8, 10, 10] {
            assert!(queue.pop(at(now)).is_some());
            queue.retry("a", at(now));
            assert_eq!(queue.next_deadline(), Some(at(now + wait)));
            assert_eq!(queue.pop(at(now + wait) - Duration::from_millis(1)), None);
            now += wait;
        }
    }

    #[test]
    fn parked_until_its_rejecter_is_helped() {
        let mut queue = queue(&["a"]);
        queue.pop(at(0));
        queue.park("a", Plugins::from_iter([Plugin::NodePorts]), at(0));
        queue.wake(at(5), |_, by| by.contains(Plugin::NodeAffinity));
        assert_eq!(pop(&mut queue, 5), None);
        queue.wake(at(5), |_, by| by.contains(Plugin::NodePorts));
        assert_eq!(pop(&mut queue, 5).as_deref(), Some("a"));
    }

    #[test]
    fn parked_pods_are_tried_again_after_five_minutes() {
        let mut queue = queue(&["a"]);
        queue.pop(at(0));
        queue.park("a", Plugins::default(), at(0));
        assert_eq!(queue.next_deadline(), Some(MAX_PARKED));
        assert_eq!(pop(&mut queue, 299), None);
        assert_eq!(pop(&mut queue, 300).as_deref(), Some("a"));
    }

    #[test]
    fn gates_hold_a_pod() {
        let mut queue = Queue::default();
        let gated = Pending {
            gates: vec!["example.com/quota".to_owned()],
            ..pod("a", 0)
        };
        queue.set(gated, at(0));
        assert_eq!((pop(&mut queue, 0), queue.counts().gated), (None, 1));
        queue.set(pod("a", 0), at(1));
        assert_eq!(pop(&mut queue, 1).as_deref(), Some("a"));
    }

    #[test]
    fn a_namesake_starts_afresh() {
        let mut queue = queue(&["a"]);
        queue.pop(at(0));
        queue.retry("a", at(0));
        let namesake = Pending {
            uid: Arc::from("other"),
            ..pod("a", 0)
        };
        queue.set(namesake, at(0));
        assert_eq!(pop(&mut queue, 0).as_deref(), Some("a"));
    }

    #[test]
    fn removed_pods_do_not_come_back() {
        let mut queue = queue(&["a"]);
        queue.pop(at(0));
        queue.remove("a");
        queue.retry("a", at(0));
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(queue.counts(), Counts::default());
    }
}
