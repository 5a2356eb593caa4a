//! Changing what a running pod's containers may use, without restarting them where they allow it.
//!
//! Three stages of one thing: what the API *desires*; what this node has *allocated*, by which the
//! pod is run and by which others are admitted; and what each container has been *given*. A change
//! is first judged ([`Action::JudgeResize`]), and then waits for room, or is impossible, or becomes
//! the allocation, which is then given to the pod's cgroup and its containers.
//!
//! [`Machine::pod`] is the pod with what is allocated to it, not with what is desired. No record of
//! it is kept on the node: `status.containerStatuses[].resources` says what was given, and a change
//! that was under way when the agent died is judged again.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as ContainerOfSpec, Pod, PodCondition, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::{conditions, k8s_openapi};

use super::backoff::Backoff;
use super::container::Container;
use super::event::{Action, Given};
use super::machine::Machine;
use super::{qos, spec};

/// Of a change that waits for room or cannot be.
pub(super) const PENDING: &str = "PodResizePending";
/// Of a change that is being made.
pub(super) const IN_PROGRESS: &str = "PodResizeInProgress";

/// Whether this node can give what is desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is allocated.
    Fits,
    /// Not now.
    Deferred(String),
    /// Never.
    Infeasible(String),
}

/// How far a change is.
#[derive(Debug, Default)]
pub(super) struct Resize {
    /// Whether a judgement is awaited.
    asked: bool,
    /// Why what is desired is not allocated.
    refused: Option<Judgement>,
    /// Whether the pod's cgroup must grow before its containers.
    grow: bool,
    /// Whether the pod's cgroup must get its final limits once all containers have theirs.
    settle: bool,
    busy: bool,
    retry: Backoff<1, 60>,
    error: Option<String>,
}

impl Machine {
    /// Takes over the pod as the API has it; what is allocated stays.
    pub(super) fn desire_resources(&mut self, desired: Arc<Pod>) {
        let changed = !same_resources(&desired, &self.desired);
        self.pod = allocated(&desired, &self.pod);
        self.desired = desired;
        if changed {
            self.resize.refused = None;
        }
    }

    /// Allocates what is desired. Called with the node's admission held, so that nobody else is
    /// given the same room.
    pub fn grant_resize(&mut self) {
        self.pod = self.desired.clone();
        self.resize.grow = true;
        self.resize.settle = true;
    }

    /// Whether a change waits for room on the node.
    pub fn awaits_room(&self) -> bool {
        matches!(self.resize.refused, Some(Judgement::Deferred(_)))
    }

    /// The pod as it is desired.
    pub fn desired(&self) -> &Arc<Pod> {
        &self.desired
    }

    pub(super) fn room_changed(&mut self) {
        if self.awaits_room() {
            self.resize.refused = None;
        }
    }

    pub(super) fn resize_judged(&mut self, judgement: Judgement) {
        self.resize.asked = false;
        let (reason, text) = match &judgement {
            Judgement::Fits => {
                self.note("ResizeStarted", "Pod resize started".to_owned(), None);
                return;
            }
            // What was desired has been withdrawn meanwhile.
            _ if same_resources(&self.desired, &self.pod) => return,
            Judgement::Deferred(text) => ("ResizeDeferred", format!("Pod resize Deferred: {text}")),
            Judgement::Infeasible(text) => {
                ("ResizeInfeasible", format!("Pod resize Infeasible: {text}"))
            }
        };
        self.resize.refused = Some(judgement);
        self.warn(reason, text, None);
    }

    pub(super) fn resized(
        &mut self,
        given: Vec<Given>,
        settled: bool,
        error: Option<String>,
        now: Timestamp,
    ) {
        self.resize.busy = false;
        for Given { id, resources } in given {
            if let Some(container) = self.running(&id) {
                container.given = Some(resources);
            }
        }
        if let Some(error) = error {
            let repeated = self.resize.error.as_ref() == Some(&error);
            self.resize.retry.fail(now);
            if !repeated {
                self.warn("ResizeError", format!("Pod resize error: {error}"), None);
            }
            self.resize.error = Some(error);
            return;
        }
        self.resize.error = None;
        self.resize.retry.clear();
        self.resize.grow = false;
        if settled {
            self.resize.settle = false;
            self.note("ResizeCompleted", "Pod resize completed".to_owned(), None);
        }
    }

    /// Brings what is desired, allocated and given together.
    pub(super) fn step_resize(&mut self, now: Timestamp) {
        let due = !same_resources(&self.desired, &self.pod);
        if due && !self.resize.asked && self.resize.refused.is_none() {
            self.resize.asked = true;
            self.actions.push(Action::JudgeResize);
        }
        if self.resize.busy || !self.resize_in_progress() {
            return;
        }
        if let Some(until) = self.resize.retry.until().filter(|&until| until > now) {
            return self.wait_until(until);
        }
        let stale: Vec<(String, String, bool)> = self
            .stale()
            .filter_map(|container| {
                let restart = needs_restart(&self.pod, container);
                Some((container.name.clone(), container.run()?.id.clone(), restart))
            })
            .collect();
        let in_place: Vec<(String, String)> = stale
            .iter()
            .filter(|(_, _, restart)| !restart)
            .map(|(name, id, _)| (name.clone(), id.clone()))
            .collect();
        let settle = stale.iter().all(|(_, _, restart)| !restart);
        if self.resize.grow || !in_place.is_empty() || (settle && self.resize.settle) {
            self.resize.busy = true;
            return self.actions.push(Action::Resize {
                containers: in_place,
                settle,
            });
        }
        for (name, _, _) in stale {
            let message = format!("Container {name} resize requires restart");
            self.stop(&name, self.grace_s(), &message, now);
        }
    }

    /// The containers that run with other resources than they should.
    fn stale(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| {
            let allocated = resources_of(&self.pod, &container.name);
            container.run().is_some() && !same(container.given.as_ref(), allocated)
        })
    }

    fn resize_in_progress(&self) -> bool {
        self.resize.grow || self.resize.settle || self.stale().next().is_some()
    }

    /// Says how far a change is.
    pub(super) fn tell_of_resize(&mut self, now: Timestamp) {
        let pending = match &self.resize.refused {
            Some(Judgement::Deferred(text)) => Some(("Deferred", text.clone())),
            Some(Judgement::Infeasible(text)) => Some(("Infeasible", text.clone())),
            Some(Judgement::Fits) | None => None,
        };
        let pending = pending.filter(|_| !same_resources(&self.desired, &self.pod));
        self.tell(PENDING, pending, now);
        let error = self.resize.error.clone();
        let progress = (self.ending.is_none() && self.resize_in_progress())
            .then(|| error.map_or(("", String::new()), |error| ("Error", error)));
        self.tell(IN_PROGRESS, progress, now);
    }

    /// A condition that is there only while it is true.
    fn tell(&mut self, kind: &str, why: Option<(&str, String)>, now: Timestamp) {
        let Some((reason, message)) = why else {
            return self.conditions.retain(|condition| condition.type_ != kind);
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: text(reason),
            message: text(&message),
            last_transition_time: Some(Time(now)),
            observed_generation: self.desired.metadata.generation,
            ..PodCondition::default()
        };
        conditions::set(&mut self.conditions, condition);
    }
}

/// The pod as desired, with the resources that are allocated to it.
pub(super) fn allocated(desired: &Arc<Pod>, before: &Pod) -> Arc<Pod> {
    if same_resources(desired, before) {
        return desired.clone();
    }
    let mut pod = Pod::clone(desired);
    let Some(spec) = &mut pod.spec else {
        return desired.clone();
    };
    spec.resources = spec::of(before).resources.clone();
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        if let Some(old) = find(before, &container.name) {
            container.resources.clone_from(&old.resources);
        }
    }
    Arc::new(pod)
}

/// Whether two states of a pod have the same resources.
pub(super) fn same_resources(one: &Pod, other: &Pod) -> bool {
    let (a, b) = (spec::of(one), spec::of(other));
    same(a.resources.as_ref(), b.resources.as_ref())
        && sized(one).all(|container| {
            find(other, &container.name)
                .is_none_or(|old| same(container.resources.as_ref(), old.resources.as_ref()))
        })
}

/// The containers whose resources can change.
fn sized(pod: &Pod) -> impl Iterator<Item = &ContainerOfSpec> {
    let spec = spec::of(pod);
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerOfSpec> {
    sized(pod).find(|container| container.name == name)
}

/// What is allocated to a container.
pub(super) fn resources_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ResourceRequirements> {
    find(pod, name)?.resources.as_ref()
}

/// Whether two declarations amount to the same, however they are written.
fn same(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    ["cpu", "memory"]
        .into_iter()
        .all(|name| amounts(one, name) == amounts(other, name))
}

/// The request and the limit of a resource, with upstream's default of the one by the other.
fn amounts(
    of: Option<&ResourceRequirements>,
    name: &str,
) -> [Option<peapod_api::quantity::Quantity>; 2] {
    let limit = qos::amounts(of.and_then(|r| r.limits.as_ref()));
    let request = qos::amounts(of.and_then(|r| r.requests.as_ref()));
    let limit = limit.get(name).copied();
    [request.get(name).copied().or(limit), limit]
}

/// Whether a container wants to be restarted for the change of a resource that is due.
fn needs_restart(pod: &Pod, container: &Container) -> bool {
    let Some(declared) = find(pod, &container.name) else {
        return false;
    };
    let given = container.given.as_ref();
    let mut policies = declared.resize_policy.iter().flatten();
    policies.any(|policy| {
        let name = policy.resource_name.as_str();
        policy.restart_policy == "RestartContainer"
            && amounts(given, name) != amounts(declared.resources.as_ref(), name)
    })
}
