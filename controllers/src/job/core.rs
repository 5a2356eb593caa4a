//! What a Job does next. Pure.
//!
//! A job runs pods until enough have succeeded. It first decides that it is over (condition
//! `SuccessCriteriaMet` or `FailureTarget`), then waits for its last pods to end, and only then
//! says so (`Complete` or `Failed`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::tally::{self, Tally, Terms};
use super::{pod, policy};
use crate::common::pods;
use crate::replicaset::rank;
use crate::shell::events::Note;

/// The most pods created or deleted in one go.
const BURST: usize = 500;
/// The first and the longest pause after failures, in seconds.
const PAUSE_FIRST: i64 = 10;
const PAUSE_LAST: i64 = 600;

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

    // Conditions.

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

    // The end.

    /// Whether the job is over now; then a condition says why.
    fn ends(&mut self, tally: &Tally) -> bool {
        if let Some((reason, message)) = self.failure(tally) {
            self.set("FailureTarget", "True", reason, &message);
            return true;
        }
        if let Some((reason, message)) = self.success(tally) {
            self.set("SuccessCriteriaMet", "True", reason, &message);
            return true;
        }
        false
    }

    fn failure(&mut self, tally: &Tally) -> Option<(&'static str, String)> {
        if let Some(why) = &tally.fails_job {
            return Some(("PodFailurePolicy", why.clone()));
        }
        let limit = self.spec.backoff_limit.unwrap_or(i32::MAX);
        if tally.failed() > limit || self.restarts_too_often(limit) {
            let message = "Job has reached the specified backoff limit";
            return Some(("BackoffLimitExceeded", message.to_owned()));
        }
        if let (Some(deadline), false) = (self.deadline(), self.spec.suspend == Some(true)) {
            match pods::until(deadline, 0, self.now) {
                None => {
                    let message = "Job was active longer than specified deadline";
                    return Some(("DeadlineExceeded", message.to_owned()));
                }
                left => self.wake(left),
            }
        }
        let failed = tally.failed_indexes.count();
        if self
            .spec
            .max_failed_indexes
            .is_some_and(|most| failed > most)
        {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.to_owned()));
        }
        let completions = self.indexed()?;
        if failed > 0 && failed + tally.completed.count() >= completions {
            return Some(("FailedIndexes", "Job has failed indexes".to_owned()));
        }
        None
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds?;
        let start = self.plan.status.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Pods that restart their containers themselves count by those restarts.
    fn restarts_too_often(&self, limit: i32) -> bool {
        let policy = self
            .spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let trying = self
            .seen
            .pods
            .iter()
            .filter(|one| matches!(pods::phase(one), "Running" | "Pending"));
        let restarts: i32 = trying.map(|one| restarts(one)).sum();
        restarts > 0 && restarts >= limit
    }

    fn success(&self, tally: &Tally) -> Option<(&'static str, String)> {
        if let Some(completions) = self.indexed()
            && let Some(rule) = policy::success(self.seen.job, &tally.completed, completions)
        {
            return Some(("SuccessPolicy", format!("Matched rules at index {rule}")));
        }
        let done = match self.spec.completions {
            Some(completions) => tally.succeeded() >= completions,
            None => tally.succeeded() > 0 && self.active().is_empty(),
        };
        let message = "Reached expected number of succeeded pods";
        done.then(|| ("CompletionsReached", message.to_owned()))
    }

    /// Says that the job is over, when all its pods are and all are counted.
    fn finish(&mut self, tally: &Tally) {
        if self.finished_at().is_some() {
            return;
        }
        let status = &self.plan.status;
        let quiet = status.active.is_none() && status.terminating == Some(0) && tally.is_settled();
        if !quiet {
            return;
        }
        for (target, over) in [
            ("FailureTarget", "Failed"),
            ("SuccessCriteriaMet", "Complete"),
        ] {
            let Some(why) = self
                .condition(target)
                .filter(|one| one.status == "True")
                .cloned()
            else {
                continue;
            };
            let (reason, message) = (
                why.reason.unwrap_or_default(),
                why.message.unwrap_or_default(),
            );
            self.set(over, "True", &reason, &message);
            if over == "Complete" {
                self.plan.status.completion_time = Some(Time(self.now));
                self.plan
                    .notes
                    .push(Note::normal("Completed", "Job completed"));
            } else {
                self.plan
                    .notes
                    .push(Note::warning(reason_of(&reason), message));
            }
            self.expire(self.now);
            return;
        }
    }

    fn expire(&mut self, finished: Timestamp) {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else {
            return;
        };
        match pods::until(finished, i64::from(seconds), self.now) {
            None => self.plan.expired = true,
            left => self.wake(left),
        }
    }

    fn wake(&mut self, wait: Option<Duration>) {
        self.plan.wake = self.plan.wake.into_iter().chain(wait).min();
    }

    // The pods.

    fn run_or_rest(&mut self, tally: &Tally, suspended: bool) {
        let was = self.has("Suspended");
        if suspended {
            self.plan.drop = self.active();
            if !was {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                self.plan
                    .notes
                    .push(Note::normal("Suspended", "Job suspended"));
            }
            return;
        }
        if was {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            self.plan.status.start_time = Some(Time(self.now));
            self.plan.notes.push(Note::normal("Resumed", "Job resumed"));
        }
        if self.seen.settled {
            self.manage(tally);
        }
    }

    fn manage(&mut self, tally: &Tally) {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let mut active = self.active();
        if self.indexed().is_some() {
            let doubles = doubles(&mut active, tally);
            self.plan.drop.extend(doubles);
        }
        let left = |completions: i32| {
            let left = completions - tally.succeeded() - tally.failed_indexes.count();
            usize::try_from(left).unwrap_or(0)
        };
        let wanted = match self.spec.completions {
            Some(completions) => left(completions).min(parallelism),
            None if tally.succeeded() > 0 => active.len().min(parallelism),
            None => parallelism,
        };
        if active.len() > wanted {
            let surplus = active.len() - wanted;
            self.plan.drop.extend(surplus_of(active, surplus, self.now));
            return;
        }
        let ending = match self.replaces_failed_only() {
            true => self.terminating().count(),
            false => 0,
        };
        let missing = wanted.saturating_sub(active.len() + ending).min(BURST);
        if missing == 0 {
            return;
        }
        match self.indexed() {
            Some(completions) => self.create_indexes(tally, &active, completions, missing),
            None => match self.pause(|_| true) {
                Some(left) => self.wake(Some(left)),
                None => {
                    let new = pod::new(self.seen.job, None);
                    self.plan.create = vec![new; missing];
                }
            },
        }
    }

    /// Pods for the lowest indexes that have none.
    fn create_indexes(
        &mut self,
        tally: &Tally,
        active: &[Arc<Pod>],
        completions: i32,
        missing: usize,
    ) {
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let common = if per_index {
            None
        } else {
            self.pause(|_| true)
        };
        if common.is_some() {
            return self.wake(common);
        }
        let held: Vec<i32> = match self.replaces_failed_only() {
            true => self
                .terminating()
                .filter_map(|one| pod::index(one))
                .collect(),
            false => Vec::new(),
        };
        let taken: std::collections::BTreeSet<i32> = active
            .iter()
            .filter_map(|one| pod::index(one))
            .chain(held)
            .collect();
        let failed: Vec<_> = self
            .seen
            .pods
            .iter()
            .filter(|one| pods::phase(one) == "Failed")
            .cloned()
            .collect();
        for index in 0..completions {
            if self.plan.create.len() >= missing {
                return;
            }
            if taken.contains(&index)
                || tally.completed.contains(index)
                || tally.failed_indexes.contains(index)
            {
                continue;
            }
            let pause = if per_index {
                self.pause(|one| pod::index(one) == Some(index))
            } else {
                None
            };
            if pause.is_some() {
                self.wake(pause);
                continue;
            }
            let failures = per_index.then(|| pod::failures_of(index, &failed));
            self.plan
                .create
                .push(pod::new(self.seen.job, Some((index, failures))));
        }
    }

    /// How long to wait after the last failures: longer, the more there were since a success.
    fn pause(&self, counts: impl Fn(&Pod) -> bool) -> Option<Duration> {
        let ends = |phase: &'static str| {
            let ended = self
                .seen
                .pods
                .iter()
                .filter(move |one| pods::phase(one) == phase);
            ended
                .filter(|one| counts(one))
                .filter_map(|one| pod::ended_at(one))
                .collect::<Vec<_>>()
        };
        let success = ends("Succeeded").into_iter().max();
        let failures: Vec<_> = ends("Failed")
            .into_iter()
            .filter(|end| Some(*end) > success)
            .collect();
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1)
            .unwrap_or(u32::MAX)
            .min(10);
        let seconds = (PAUSE_FIRST << doublings).min(PAUSE_LAST);
        pods::until(*last, seconds, self.now)
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

fn restarts(one: &Pod) -> i32 {
    let status = one.status.iter();
    let containers = status.flat_map(|status| {
        let own = status.container_statuses.iter().flatten();
        own.chain(status.init_container_statuses.iter().flatten())
    });
    containers.map(|container| container.restart_count).sum()
}

/// Takes out the pods of indexes that another pod has, or that need none.
fn doubles(active: &mut Vec<Arc<Pod>>, tally: &Tally) -> Vec<Arc<Pod>> {
    let mut first: BTreeMap<i32, ()> = BTreeMap::new();
    active.sort_by_key(|one| one.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let (keep, drop) = std::mem::take(active).into_iter().partition(|one| {
        pod::index(one).is_some_and(|index| {
            !tally.completed.contains(index) && first.insert(index, ()).is_none()
        })
    });
    *active = keep;
    drop
}

/// The pods to go: those of the highest indexes, or those that did least.
fn surplus_of(mut active: Vec<Arc<Pod>>, surplus: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if active.iter().any(|one| pod::index(one).is_some()) {
        active.sort_by_key(|one| std::cmp::Reverse(pod::index(one)));
        active.truncate(surplus);
        return active;
    }
    let related = active.clone();
    rank::first_to_go(active, &related, surplus, now)
}

/// Events have reasons from a fixed list.
fn reason_of(reason: &str) -> &'static str {
    const REASONS: [&str; 6] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "PodFailurePolicy",
        "SuccessPolicy",
    ];
    let known = REASONS.iter().find(|known| **known == reason);
    known.copied().unwrap_or("Failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    /// Reads a Job and its pods, writes what happens next and the status.
    fn run(input: &str) -> String {
        let now = now(input);
        let jobs: Vec<Job> = objects(input, "Job");
        let pods: Vec<_> = objects::<Pod>(input, "Pod")
            .into_iter()
            .map(Arc::new)
            .collect();
        let seen = Observed {
            job: &jobs[0],
            pods: &pods,
            settled: !input.contains("# cache behind"),
        };
        let plan = plan(&seen, now);
        let mut lines = Vec::new();
        for new in &plan.create {
            let annotations = new.metadata.annotations.clone().unwrap_or_default();
            let failures = annotations.get(pod::INDEX_FAILURES);
            let failures = failures.map(|count| format!(" after {count} failures"));
            let prefix = new.metadata.generate_name.as_deref().unwrap_or_default();
            lines.push(format!("create {prefix}{}", failures.unwrap_or_default()));
        }
        for (what, all) in [
            ("drop", &plan.drop),
            ("stop", &plan.stop),
            ("release", &plan.release),
        ] {
            lines.extend(
                all.iter()
                    .map(|one| format!("{what} {}", one.metadata.name.clone().unwrap())),
            );
        }
        lines.extend(
            plan.notes
                .iter()
                .map(|note| format!("tell {}: {}", note.reason, note.message)),
        );
        lines.extend(plan.wake.map(|wait| format!("again in {wait:?}")));
        if plan.expired {
            lines.push("delete the job".to_owned());
        }
        lines.push(serde_json::to_string(&plan.status).unwrap());
        lines.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("job", run);
    }
}
