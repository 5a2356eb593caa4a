//! Decided pods whose bindings are on their way.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::{Action, Scheduler};
use crate::core::events::Change;
use crate::core::queue::Pending;
use crate::core::snapshot::Facts;
use crate::core::volumes::Bind;

/// How long a decided pod waits for its claims to be bound.
pub const CLAIMS_TIMEOUT: Duration = Duration::from_secs(600);

/// A decided pod whose binding is on its way.
#[derive(Debug)]
pub(super) struct Assumed {
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

impl Assumed {
    /// Whether its binding may still fail.
    pub(super) fn under_way(&self) -> bool {
        self.stage != Stage::Bound
    }

    /// Whether it is the pod of this UID, and not a namesake.
    pub(super) fn is_of(&self, uid: &str) -> bool {
        *self.pod.uid == *uid
    }
}

impl<R: Rng> Scheduler<R> {
    pub(super) fn assume(
        &mut self,
        pod: Arc<Pending>,
        node: Arc<str>,
        binds: Vec<Bind>,
        now: Duration,
    ) {
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

    /// Whether it is this pod, and not a namesake, whose binding is on its way.
    pub(super) fn is_assumed(&self, pod: &Pending) -> bool {
        let assumed = self.assumed.get(&pod.key);
        assumed.is_some_and(|assumed| assumed.pod.uid == pod.uid)
    }

    pub(super) fn bound(&mut self, pod: &Pending) {
        if !self.is_assumed(pod) {
            return;
        }
        self.queue.remove(&pod.key);
        self.said.remove(&pod.key);
        if let Some(assumed) = self.assumed.get_mut(&pod.key) {
            assumed.stage = Stage::Bound;
        }
    }

    pub(super) fn take_back(&mut self, key: &str, now: Duration) {
        if !self.end_assumption(key) {
            return;
        }
        self.queue.retry(key, now);
        if let Some((placed, shape)) = self.snapshot.remove_pod(key) {
            self.wake(Change::PodLeft(placed.node, &shape), now);
        }
    }

    /// Ends the assumption about a pod, confirmed or not. Returns whether there was one.
    pub(super) fn end_assumption(&mut self, key: &str) -> bool {
        self.waiting.remove(key);
        let Some(assumed) = self.assumed.remove(key) else {
            return false;
        };
        self.snapshot.volumes.release(&assumed.binds);
        true
    }

    pub(super) fn bind_when_claims_are_bound(&mut self) {
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
}
