//! What the API says of pods and nodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::assumed::Assumed;
use super::{Action, Scheduler};
use crate::core::events::Change;
use crate::core::input::PodUpdate;
use crate::core::queue::Pending;
use crate::core::shape::Shape;
use crate::core::snapshot::{Facts, Nomination, PodKey};

// === pods ===

impl<R: Rng> Scheduler<R> {
    pub(super) fn pod(&mut self, pod: PodUpdate, now: Duration) {
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
            if assumed.is_of(&pod.uid) {
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
    pub(super) fn forget(&mut self, key: &str, now: Duration) {
        self.queue.remove(key);
        self.said.remove(key);
        self.end_assumption(key);
        self.unnominate(key, now);
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            self.wake(Change::PodLeft(placed.node, &shape), now);
        }
    }

    pub(super) fn keep_pods(&mut self, keys: &HashSet<PodKey>, now: Duration) {
        // A binding on its way answers by itself whether its pod is still there.
        let under_way = |key: &PodKey| self.assumed.get(key).is_some_and(Assumed::under_way);
        let placed = self.snapshot.pods().map(|(key, _)| key);
        let known = placed.chain(self.queue.keys());
        let gone = known.filter(|key| !keys.contains(*key) && !under_way(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.forget(&key, now);
        }
    }

    pub(super) fn keep_nodes(&mut self, names: &HashSet<String>) {
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
