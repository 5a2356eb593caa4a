//! Which pods of a Job that goes on are made, and which go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{BURST, Planner};
use crate::common::pods;
use crate::job::pod;
use crate::job::tally::Tally;
use crate::replicaset::rank;
use crate::shell::events::Note;

/// The first and the longest pause after failures, in seconds.
const PAUSE_FIRST: i64 = 10;
const PAUSE_LAST: i64 = 600;

impl Planner<'_> {
    pub(super) fn run_or_rest(&mut self, tally: &Tally, suspended: bool) {
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
