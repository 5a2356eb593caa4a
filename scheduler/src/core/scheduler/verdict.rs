//! What follows when no node can take a pod: it is said, and room is made.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::{Action, Novelty, Scheduler, candidate};
use crate::core::decide::Diagnosis;
use crate::core::events::Change;
use crate::core::preempt::{NoPreemption, Preemption, preempt};
use crate::core::queue::Pending;
use crate::core::snapshot::{Facts, Nomination, PodKey};

// === decisions ===

impl<R: Rng> Scheduler<R> {
    pub(super) fn reject(&mut self, pod: &Arc<Pending>, diagnosis: &Diagnosis, now: Duration) {
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
    pub(super) fn unnominate(&mut self, key: &str, now: Duration) -> bool {
        let Some(nomination) = self.snapshot.nominations.remove(key) else {
            return false;
        };
        if let Some(id) = self.snapshot.find_node(&nomination.node) {
            self.wake(Change::Node(id), now);
        }
        true
    }

    /// Notes that a pod is about to go, before its own change says so.
    pub(super) fn set_leaving(&mut self, key: &PodKey, leaving: bool) {
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            let node = self.snapshot.node(placed.node).name.clone();
            let facts = Facts {
                terminating: leaving,
                ..placed.facts
            };
            self.snapshot.place(key, &shape, &node, facts);
        }
    }
}
