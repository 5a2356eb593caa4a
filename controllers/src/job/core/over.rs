//! When a Job is over, why, and what is said of it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Planner;
use crate::common::pods;
use crate::job::policy;
use crate::job::tally::Tally;
use crate::shell::events::Note;

impl Planner<'_> {
    /// Whether the job is over now; then a condition says why.
    pub(super) fn ends(&mut self, tally: &Tally) -> bool {
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
    pub(super) fn finish(&mut self, tally: &Tally) {
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

    pub(super) fn expire(&mut self, finished: Timestamp) {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else {
            return;
        };
        match pods::until(finished, i64::from(seconds), self.now) {
            None => self.plan.expired = true,
            left => self.wake(left),
        }
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
