//! What a Job does next. Pure.
//!
//! A job runs pods until enough have succeeded. It first decides that it is over (condition
//! `SuccessCriteriaMet` or `FailureTarget`), then waits for its last pods to end, and only then
//! says so (`Complete` or `Failed`).

mod manage;
mod over;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pod;
use super::tally::{self, Terms};
use crate::common::pods;
use crate::shell::events::Note;

/// The most pods created or deleted in one go.
const BURST: usize = 500;

/// What a Job is seen to be.
pub struct Observed<'a> {
    /// The Job.
    pub job: &'a Job,
    /// The pods that it controls.
    pub pods: &'a [Arc<Pod>],
    /// Whether the cache shows all that was written; else no pod is made.
    pub settled: bool,
}

/// What to do, the status, and when to look again without any change.
#[derive(Default)]
pub struct Plan {
    /// Pods to create, by index where there are indexes.
    pub create: Vec<Pod>,
    /// Pods to delete without counting them: the job has too many, or is suspended.
    pub drop: Vec<Arc<Pod>>,
    /// Pods to delete and count as failed: the job is over.
    pub stop: Vec<Arc<Pod>>,
    /// Pods whose finalizer may go, once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// The status.
    pub status: JobStatus,
    /// What to tell.
    pub notes: Vec<Note>,
    /// A deadline.
    pub wake: Option<Duration>,
    /// The job has been over for long enough.
    pub expired: bool,
}

/// Decides.
pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let job = seen.job;
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    let old = job.status.clone().unwrap_or_default();
    let mut planner = Planner {
        seen,
        spec,
        now,
        plan: Plan {
            status: old,
            ..Plan::default()
        },
    };
    if job.metadata.deletion_timestamp.is_some() {
        planner.plan.release = seen
            .pods
            .iter()
            .filter(|one| pod::is_tracked(one))
            .cloned()
            .collect();
    } else {
        planner.decide();
    }
    let mut plan = planner.plan;
    plan.create.truncate(BURST);
    plan
}

struct Planner<'a> {
    seen: &'a Observed<'a>,
    spec: &'a JobSpec,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn decide(&mut self) {
        let finished = self.finished_at();
        let target = ["FailureTarget", "SuccessCriteriaMet"];
        let ending = target.iter().any(|kind| self.has(kind));
        let terms = Terms {
            indexed: self.indexed(),
            limit_per_index: self.spec.backoff_limit_per_index,
            deleted_is_failed: !self.replaces_failed_only(),
            failed: ["FailureTarget", "Failed"]
                .iter()
                .any(|kind| self.has(kind)),
        };
        let tally = tally::tally(self.seen.job, self.seen.pods, &terms);
        self.plan.release = tally.release.clone();
        let suspended = self.spec.suspend == Some(true);
        if finished.is_none() && !suspended && self.plan.status.start_time.is_none() {
            self.plan.status.start_time = Some(Time(self.now));
        }
        if let Some(finished) = finished {
            self.plan.stop = self.active();
            self.expire(finished);
        } else if ending || self.ends(&tally) {
            self.plan.stop = self.active();
        } else {
            self.run_or_rest(&tally, suspended);
        }
        tally.write(&mut self.plan.status);
        self.count();
        self.finish(&tally);
    }

    /// The completions, when they are indexed.
    fn indexed(&self) -> Option<i32> {
        let indexed = self.spec.completion_mode.as_deref() == Some("Indexed");
        self.spec.completions.filter(|_| indexed)
    }

    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        let active = self.seen.pods.iter().filter(|one| pods::is_active(one));
        active.cloned().collect()
    }

    fn terminating(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let ending = |one: &&Arc<Pod>| pods::is_terminating(one) && !pods::is_finished(one);
        self.seen.pods.iter().filter(ending)
    }

    fn condition(&self, kind: &str) -> Option<&JobCondition> {
        let mut all = self.plan.status.conditions.iter().flatten();
        all.find(|one| one.type_ == kind)
    }

    fn has(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|one| one.status == "True")
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let new = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        let all = self.plan.status.conditions.get_or_insert_default();
        match all.iter_mut().find(|one| one.type_ == kind) {
            Some(old) => *old = new,
            None => all.push(new),
        }
    }

    fn finished_at(&self) -> Option<Timestamp> {
        let over = ["Complete", "Failed"].iter().find(|kind| self.has(kind))?;
        let time = self.condition(over)?.last_transition_time.as_ref();
        Some(time.map_or(self.now, |time| time.0))
    }

    fn wake(&mut self, wait: Option<Duration>) {
        self.plan.wake = self.plan.wake.into_iter().chain(wait).min();
    }

    fn count(&mut self) {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let some = |number: usize| (number != 0).then_some(count(number));
        let active = self.active();
        let ready = active.iter().filter(|one| pods::is_ready(one)).count();
        let terminating = self.terminating().count();
        let status = &mut self.plan.status;
        status.active = some(active.len());
        status.ready = Some(count(ready));
        status.terminating = Some(count(terminating));
    }
}

#[cfg(test)]
mod tests;
