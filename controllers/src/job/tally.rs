//! Which ends of pods are counted. Pure.
//!
//! Every pod holds a finalizer until its end is counted, so that no end is lost when pods are
//! deleted. Counting takes three steps, each safe to repeat: the pod's UID is written into
//! `status.uncountedTerminatedPods`; its finalizer is taken away; it is moved from the list into
//! the count. Indexes need no list, for a set can be written twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use super::pod;
use super::policy::{self, Verdict};
use crate::common::pods;

/// The most UIDs in the lists at a time.
const LISTED_MAX: usize = 500;

/// What is counted, and what will be.
#[derive(Default)]
pub struct Tally {
    counted_succeeded: i32,
    counted_failed: i32,
    listed_succeeded: Vec<String>,
    listed_failed: Vec<String>,
    /// Indexes that succeeded.
    pub completed: Indexes,
    /// Indexes that failed for good.
    pub failed_indexes: Indexes,
    /// Pods whose finalizer may go once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// A failed pod that fails the whole job, and why.
    pub fails_job: Option<String>,
    indexed: bool,
}

/// How a job counts.
pub struct Terms {
    /// The completions, when they are indexed.
    pub indexed: Option<i32>,
    /// How often an index may fail.
    pub limit_per_index: Option<i32>,
    /// Whether a pod that is being deleted counts as failed before it has ended.
    pub deleted_is_failed: bool,
    /// Whether the job has failed, and all its pods with it.
    pub failed: bool,
}

impl Terms {
    fn has_failed(&self, one: &Pod) -> bool {
        let early = self.failed || (self.deleted_is_failed && pods::is_terminating(one));
        match pods::phase(one) {
            "Failed" => true,
            "Succeeded" => false,
            _ => early,
        }
    }
}

/// Counts what has ended.
pub fn tally(job: &Job, owned: &[Arc<Pod>], terms: &Terms) -> Tally {
    let none = JobStatus::default();
    let status = job.status.as_ref().unwrap_or(&none);
    let bound = terms.indexed.unwrap_or(0);
    let indexes = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or(""), bound);
    let mut tally = Tally {
        counted_succeeded: status.succeeded.unwrap_or(0),
        counted_failed: status.failed.unwrap_or(0),
        completed: indexes(&status.completed_indexes),
        failed_indexes: indexes(&status.failed_indexes),
        indexed: terms.indexed.is_some(),
        ..Tally::default()
    };
    tally.settle(status, owned);
    let failed: Vec<_> = owned
        .iter()
        .filter(|one| terms.has_failed(one))
        .cloned()
        .collect();
    for one in owned.iter().filter(|one| pod::is_tracked(one)) {
        tally.take(job, one, &failed, terms);
    }
    tally
}

fn uid(one: &Pod) -> &str {
    one.metadata.uid.as_deref().unwrap_or_default()
}

impl Tally {
    /// Moves from the lists into the counts what has lost its finalizer.
    fn settle(&mut self, status: &JobStatus, owned: &[Arc<Pod>]) {
        let tracked = owned.iter().filter(|one| pod::is_tracked(one));
        let tracked: BTreeSet<&str> = tracked.map(|one| uid(one)).collect();
        let Some(listed) = &status.uncounted_terminated_pods else {
            return;
        };
        for uid in listed.succeeded.iter().flatten() {
            match tracked.contains(uid.as_str()) {
                true => self.listed_succeeded.push(uid.clone()),
                false => self.counted_succeeded += 1,
            }
        }
        for uid in listed.failed.iter().flatten() {
            match tracked.contains(uid.as_str()) {
                true => self.listed_failed.push(uid.clone()),
                false => self.counted_failed += 1,
            }
        }
    }

    fn take(&mut self, job: &Job, one: &Arc<Pod>, failed: &[Arc<Pod>], terms: &Terms) {
        let id = uid(one).to_owned();
        if self.listed_succeeded.contains(&id) || self.listed_failed.contains(&id) {
            return self.release.push(one.clone());
        }
        if self.listed_succeeded.len() + self.listed_failed.len() >= LISTED_MAX {
            return;
        }
        let index = pod::index(one).filter(|index| terms.indexed.is_some_and(|n| *index < n));
        if pods::phase(one) == "Succeeded" {
            match (terms.indexed, index) {
                (None, _) => self.listed_succeeded.push(id),
                (Some(_), Some(index)) => self.completed.insert(index),
                (Some(_), None) => {}
            }
        } else if terms.has_failed(one) {
            match policy::judge(job, one) {
                Verdict::Ignore if !terms.failed => return self.release.push(one.clone()),
                Verdict::FailJob(why) if self.fails_job.is_none() => self.fails_job = Some(why),
                Verdict::FailIndex => self.fail_index(index),
                _ => {}
            }
            if let (Some(index), Some(limit)) = (index, terms.limit_per_index)
                && pod::failures_of(index, failed) > limit
            {
                self.fail_index(Some(index));
            }
            self.listed_failed.push(id);
        } else {
            return;
        }
        self.release.push(one.clone());
    }

    fn fail_index(&mut self, index: Option<i32>) {
        if let Some(index) = index.filter(|index| !self.completed.contains(*index)) {
            self.failed_indexes.insert(index);
        }
    }

    /// Pods, or indexes, that succeeded.
    pub fn succeeded(&self) -> i32 {
        match self.indexed {
            true => self.completed.count(),
            false => self.counted_succeeded + count(&self.listed_succeeded),
        }
    }

    /// Pods that failed.
    pub fn failed(&self) -> i32 {
        self.counted_failed + count(&self.listed_failed)
    }

    /// Whether every end is in the counts.
    pub fn is_settled(&self) -> bool {
        self.listed_succeeded.is_empty() && self.listed_failed.is_empty()
    }

    /// Puts the counts into a status.
    pub fn write(&self, status: &mut JobStatus) {
        let some = |count: i32| (count != 0).then_some(count);
        status.succeeded = match self.indexed {
            true => some(self.completed.count()),
            false => some(self.counted_succeeded),
        };
        status.failed = some(self.counted_failed);
        status.completed_indexes = self.completed.to_status();
        status.failed_indexes = self.failed_indexes.to_status();
        let list = |uids: &[String]| (!uids.is_empty()).then(|| uids.to_vec());
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: list(&self.listed_succeeded),
            failed: list(&self.listed_failed),
        });
    }
}

fn count(uids: &[String]) -> i32 {
    i32::try_from(uids.len()).unwrap_or(i32::MAX)
}
