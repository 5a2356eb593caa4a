//! A Deployment's status and conditions.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::conditions;

use super::limits::{self, Limits};
use crate::common::pods;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// The deadline of progress, in seconds, if there is one.
fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.progress_deadline_seconds;
    seconds.filter(|&seconds| seconds != i32::MAX)
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Puts a condition in its place, unless one of the same status and reason stands there.
fn put(conditions: &mut Vec<DeploymentCondition>, new: DeploymentCondition) {
    let kind = new.type_.as_deref().unwrap_or_default();
    let old = conditions::find(conditions, kind);
    if old.is_some_and(|old| old.status == new.status && old.reason == new.reason) {
        return;
    }
    conditions::set(conditions, new);
}

fn remove(conditions: &mut Vec<DeploymentCondition>, kind: &str) {
    conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
}

fn reason_of(condition: Option<&DeploymentCondition>) -> &str {
    condition
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default()
}

fn sum(sets: &[Arc<ReplicaSet>], of: fn(&ReplicaSet) -> Option<i32>) -> i32 {
    sets.iter().map(|set| of(set).unwrap_or(0)).sum()
}

/// The status under construction.
pub struct Builder<'a> {
    deployment: &'a Deployment,
    conditions: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl<'a> Builder<'a> {
    /// Starts from the status there is, with the conditions of pausing brought up to date.
    pub fn new(deployment: &'a Deployment, now: Timestamp) -> Self {
        let old = deployment
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone());
        let mut builder = Self {
            deployment,
            conditions: old.unwrap_or_default(),
            now,
        };
        builder.note_pause();
        builder
    }

    fn note_pause(&mut self) {
        let progressing = conditions::find(&self.conditions, PROGRESSING);
        let reason = reason_of(progressing);
        if deadline(self.deployment).is_none() || reason == TIMED_OUT {
            return;
        }
        let (reason, message) = match (self.deployment.spec.paused == Some(true), reason == PAUSED)
        {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => (RESUMED, "Deployment is resumed"),
            _ => return,
        };
        self.progress("Unknown", reason, message.to_owned());
    }

    fn progress(&mut self, status: &str, reason: &str, message: String) {
        let new = condition(PROGRESSING, status, reason, message, self.now);
        put(&mut self.conditions, new);
    }

    /// Notes that the new ReplicaSet was there already.
    pub fn found(&mut self, name: &str) {
        let known = conditions::find(&self.conditions, PROGRESSING).is_some();
        if deadline(self.deployment).is_some() && !known {
            let message = format!("Found new replica set \"{name}\"");
            self.progress("True", "FoundNewReplicaSet", message);
        }
    }

    /// Notes that the new ReplicaSet is being created.
    pub fn created(&mut self, name: &str) {
        if deadline(self.deployment).is_some() {
            let message = format!("Created new replica set \"{name}\"");
            self.progress("True", "NewReplicaSetCreated", message);
        }
    }

    /// The counts and the availability, as they stand outside of a rollout too.
    pub fn plain(mut self, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> DeploymentStatus {
        let status_of = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
        let limits = Limits::of(self.deployment);
        let available = limits::available(sets.iter().map(Arc::as_ref));
        let total = limits::total(sets.iter().map(Arc::as_ref));
        let condition = match available >= limits.floor() {
            true => ("True", "MinimumReplicasAvailable", "has"),
            false => ("False", "MinimumReplicasUnavailable", "does not have"),
        };
        let (status, reason, has) = condition;
        let message = format!("Deployment {has} minimum availability.");
        let condition = self::condition(AVAILABLE, status, reason, message, self.now);
        put(&mut self.conditions, condition);
        let old = self.deployment.status.as_ref();
        let some = |count: i32| (count != 0).then_some(count);
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(sum(sets, |set| Some(set.status.as_ref()?.replicas))),
            updated_replicas: some(new.map_or(0, |new| status_of(new).replicas)),
            ready_replicas: some(sum(sets, |set| set.status.as_ref()?.ready_replicas)),
            available_replicas: some(available),
            unavailable_replicas: some((total - available).max(0)),
            terminating_replicas: Some(sum(sets, |set| set.status.as_ref()?.terminating_replicas)),
            collision_count: old.and_then(|status| status.collision_count),
            conditions: Some(self.conditions),
        }
    }

    /// The status in a rollout: progress, its end, or its deadline.
    pub fn rollout(self, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> DeploymentStatus {
        let (deployment, now) = (self.deployment, self.now);
        let mut status = self.plain(sets, new);
        let mut conditions = status.conditions.take().unwrap_or_default();
        if deadline(deployment).is_none() {
            remove(&mut conditions, PROGRESSING);
        } else {
            progress(deployment, &status, &mut conditions, new, now);
        }
        match failure(sets, new) {
            Some(failure) => put(&mut conditions, failure),
            None => remove(&mut conditions, REPLICA_FAILURE),
        }
        status.conditions = Some(conditions);
        status
    }
}

fn progress(
    deployment: &Deployment,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let current = conditions::find(conditions, PROGRESSING).cloned();
    let done_before = reason_of(current.as_ref()) == DONE;
    if done_before && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match new.and_then(|new| new.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!(
            "Deployment \"{}\"",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        put(
            conditions,
            condition(PROGRESSING, "True", DONE, message, now),
        );
    } else if has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        let new = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        // Not `put`: each progress is a new update time, from which the deadline counts.
        conditions::set(conditions, new);
    } else if is_timed_out(deployment, current.as_ref(), now) {
        let message = format!("{subject} has timed out progressing.");
        put(
            conditions,
            condition(PROGRESSING, "False", TIMED_OUT, message, now),
        );
    }
}

/// Whether every pod is of the new template and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = limits::replicas(deployment);
    status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let outdated = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || outdated(new) < outdated(&old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn is_timed_out(
    deployment: &Deployment,
    current: Option<&DeploymentCondition>,
    now: Timestamp,
) -> bool {
    match reason_of(current) {
        TIMED_OUT => true,
        "" | DONE => false,
        _ => current.is_some() && time_left(deployment, current, now).is_none(),
    }
}

fn time_left(
    deployment: &Deployment,
    current: Option<&DeploymentCondition>,
    now: Timestamp,
) -> Option<Duration> {
    let since = current?.last_update_time.as_ref()?.0;
    pods::until(since, i64::from(deadline(deployment)?), now)
}

/// How long until the rollout of this status would be out of time; `None` when it cannot be.
pub fn next_look(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let current = conditions::find(conditions, PROGRESSING);
    if matches!(reason_of(current), DONE | TIMED_OUT | PAUSED) {
        return None;
    }
    time_left(deployment, current, now)
}

/// The failure that the new ReplicaSet reports, else an old one's.
fn failure(sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| -> Option<ReplicaSetCondition> {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let found = conditions
            .iter()
            .find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE));
        found.cloned()
    };
    let failure = new
        .and_then(of)
        .or_else(|| sets.iter().find_map(|set| of(set)))?;
    Some(DeploymentCondition {
        type_: failure.type_,
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    })
}
