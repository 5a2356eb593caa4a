//! The work queue of one loop: keys, each at most once, retried later and later.
//!
//! [`Backlog`] is the pure core. It holds at most one entry per key, so that it is bounded by
//! the number of objects; a key added while it is being worked on is worked on once more
//! afterwards, never twice at the same time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::QueueMetrics;
use crate::common::Key;

/// Wait before the first retry; each further one waits twice as long.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// The longest wait between retries.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The state of a queue.
#[derive(Debug, Default)]
struct Backlog {
    /// Keys to be worked on, oldest first, with the time they were added.
    ready: VecDeque<(Key, Instant)>,
    /// The keys in `ready`, and those of `active` that were added again.
    dirty: HashSet<Key>,
    /// Keys being worked on.
    active: HashSet<Key>,
    /// Keys for later, soonest first.
    later: BTreeSet<(Instant, Key)>,
    /// When each key of `later` is due.
    due: HashMap<Key, Instant>,
    /// How often in a row a key has failed.
    failures: HashMap<Key, u32>,
}

impl Backlog {
    /// Adds a key; false when it was there already.
    fn add(&mut self, key: Key, now: Instant) -> bool {
        if !self.dirty.insert(key.clone()) {
            return false;
        }
        if !self.active.contains(&key) {
            self.ready.push_back((key, now));
        }
        true
    }

    /// Adds a key at a later time; of two times the sooner one counts.
    fn add_at(&mut self, key: Key, at: Instant) {
        match self.due.get(&key) {
            Some(&sooner) if sooner <= at => return,
            Some(&old) => {
                self.later.remove(&(old, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// Takes the next key to work on, with the time it was added.
    fn take(&mut self, now: Instant) -> Option<(Key, Instant)> {
        while let Some((at, key)) = self.later.first().cloned() {
            if at > now {
                break;
            }
            self.later.pop_first();
            self.due.remove(&key);
            self.add(key, at);
        }
        let (key, added) = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.active.insert(key.clone());
        Some((key, added))
    }

    /// When the next key of `later` is due.
    fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Ends the work on a key.
    fn finish(&mut self, key: &Key, now: Instant) {
        self.active.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back((key.clone(), now));
        }
    }

    /// Forgets a key's failures.
    fn succeed(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Notes a failure, and puts the key off for longer each time.
    fn fail(&mut self, key: &Key, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = RETRY_MIN
            .saturating_mul(1u32 << (*failures).min(20))
            .min(RETRY_MAX);
        *failures += 1;
        self.add_at(key.clone(), now + wait);
        wait
    }
}

/// A queue shared by the handlers that fill it and the one loop that empties it.
#[derive(Clone)]
pub struct Queue {
    backlog: Arc<Mutex<Backlog>>,
    wake: Arc<Notify>,
    metrics: QueueMetrics,
}

impl Queue {
    /// An empty queue.
    pub fn new(metrics: QueueMetrics) -> Self {
        Self {
            backlog: Arc::default(),
            wake: Arc::default(),
            metrics,
        }
    }

    /// Adds a key, unless it waits already.
    pub fn add(&self, key: Key) {
        let mut backlog = self.backlog.lock();
        if backlog.add(key, Instant::now()) {
            self.metrics.added(backlog.ready.len());
            self.wake.notify_one();
        }
    }

    /// Adds a key after a while; of several waits the shortest counts.
    pub fn add_after(&self, key: Key, wait: Duration) {
        self.backlog.lock().add_at(key, Instant::now() + wait);
        self.wake.notify_one();
    }

    /// Takes a key to work on, if one is ready.
    pub(super) fn take(&self) -> Option<Key> {
        let mut backlog = self.backlog.lock();
        let now = Instant::now();
        let (key, added) = backlog.take(now)?;
        self.metrics
            .taken(backlog.ready.len(), now.saturating_duration_since(added));
        Some(key)
    }

    /// Waits until a key may be ready.
    pub(super) async fn changed(&self) {
        let due = self.backlog.lock().next_due();
        match due {
            Some(at) => tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => self.wake.notified().await,
        }
    }

    /// Ends the work on a key that went well.
    pub(super) fn done(&self, key: &Key, took: Duration) {
        let mut backlog = self.backlog.lock();
        backlog.succeed(key);
        backlog.finish(key, Instant::now());
        self.metrics.finished(backlog.ready.len(), took);
    }

    /// Ends the work on a key that went wrong, and says when it is tried again.
    pub(super) fn failed(&self, key: &Key, took: Duration) -> Duration {
        let mut backlog = self.backlog.lock();
        let wait = backlog.fail(key, Instant::now());
        backlog.finish(key, Instant::now());
        self.metrics.retried();
        self.metrics.finished(backlog.ready.len(), took);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::cluster(name)
    }

    #[test]
    fn a_key_is_queued_once_and_never_worked_on_twice_at_a_time() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(backlog.add(key("a"), now));
        assert!(!backlog.add(key("a"), now));
        assert_eq!(backlog.take(now), Some((key("a"), now)));
        assert!(backlog.add(key("a"), now), "added while worked on");
        assert_eq!(backlog.take(now), None, "but not taken until finished");
        backlog.finish(&key("a"), now);
        assert_eq!(backlog.take(now), Some((key("a"), now)));
        backlog.finish(&key("a"), now);
        assert_eq!(backlog.take(now), None);
    }

    #[test]
    fn the_sooner_of_two_times_counts() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let second = Duration::from_secs(1);
        backlog.add_at(key("a"), now + 3 * second);
        backlog.add_at(key("a"), now + second);
        backlog.add_at(key("a"), now + 2 * second);
        assert_eq!(backlog.next_due(), Some(now + second));
        assert_eq!(backlog.take(now), None);
        assert!(backlog.take(now + second).is_some());
        backlog.finish(&key("a"), now);
        assert_eq!(backlog.next_due(), None);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_the_bound() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let waits: Vec<_> = (0..20).map(|_| backlog.fail(&key("a"), now)).collect();
        assert_eq!(waits[..3], [5, 10, 20].map(Duration::from_millis));
        assert_eq!(waits[19], RETRY_MAX);
        backlog.succeed(&key("a"));
        assert_eq!(backlog.fail(&key("a"), now), RETRY_MIN);
    }
}
