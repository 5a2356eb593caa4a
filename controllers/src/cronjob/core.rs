//! What a CronJob does next. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;

use super::schedule::Schedule;
use crate::common::{owner, pods};
use crate::shell::events::Note;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times beyond which something is wrong with the clock or the schedule.
const MISSED_MAX: usize = 100;

/// What to do, the status, and when to look again.
#[derive(Default)]
pub struct Plan {
    /// The job to start.
    pub create: Option<Box<Job>>,
    /// Running jobs to replace, or finished ones beyond the history.
    pub delete: Vec<Arc<Job>>,
    /// The status; after the creation it also has the new job.
    pub status: CronJobStatus,
    /// What to tell.
    pub notes: Vec<Note>,
    /// The next scheduled time.
    pub wake: Option<Duration>,
}

/// Decides; `zone` finds a time zone by its name.
pub fn plan(
    cron: &CronJob,
    jobs: &[Arc<Job>],
    now: Timestamp,
    zone: impl Fn(&str) -> Option<TimeZone>,
) -> Plan {
    let mut plan = Plan {
        status: cron.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    history(cron, jobs, &mut plan);
    follow(jobs, &mut plan);
    let stopped = cron.spec.suspend == Some(true);
    if stopped || cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    start(cron, jobs, now, zone, &mut plan);
    plan
}

/// `Complete` or `Failed`, of a job that is over.
fn outcome(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let over = |kind: &str| matches!(kind, "Complete" | "Failed");
    let found = conditions
        .iter()
        .find(|one| over(&one.type_) && one.status == "True");
    found.map(|one| one.type_.as_str())
}

/// Deletes the oldest finished jobs beyond the limits.
fn history(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let spec = &cron.spec;
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    for (kind, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut over: Vec<_> = jobs
            .iter()
            .filter(|job| outcome(job) == Some(kind))
            .collect();
        over.sort_by_key(|job| started(job));
        let kept = usize::try_from(limit).unwrap_or(0);
        over.truncate(over.len().saturating_sub(kept));
        let alive = over
            .into_iter()
            .filter(|job| job.metadata.deletion_timestamp.is_none());
        plan.delete.extend(alive.cloned());
    }
}

fn started(job: &Job) -> (Option<Timestamp>, Option<String>) {
    let start = job
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    (start.map(|time| time.0), job.metadata.name.clone())
}

/// Keeps the list of running jobs and the time of the last success.
fn follow(jobs: &[Arc<Job>], plan: &mut Plan) {
    let uid = |job: &Job| job.metadata.uid.clone();
    let mut active = plan.status.active.take().unwrap_or_default();
    let running = jobs.iter().filter(|job| outcome(job).is_none());
    let running: Vec<&Arc<Job>> = running.collect();
    active.retain(|reference| {
        let found = jobs.iter().find(|job| uid(job) == reference.uid);
        let name = reference.name.as_deref().unwrap_or_default();
        match found.map(|job| outcome(job)) {
            Some(None) => return true,
            Some(Some(outcome)) => {
                let message = format!("Saw completed job: {name}, condition: {outcome}");
                plan.notes.push(Note::normal("SawCompletedJob", message));
            }
            None => {
                let message = format!("Active job went missing: {name}");
                plan.notes.push(Note::normal("MissingJob", message));
            }
        }
        false
    });
    for job in running {
        if !active.iter().any(|reference| reference.uid == uid(job)) {
            active.push(reference(job));
        }
    }
    plan.status.active = (!active.is_empty()).then_some(active);
    let completed = jobs.iter().filter(|job| outcome(job) == Some("Complete"));
    let times = completed.filter_map(|job| job.status.as_ref()?.completion_time.clone());
    let newest = times
        .chain(plan.status.last_successful_time.clone())
        .max_by_key(|time| time.0);
    plan.status.last_successful_time = newest;
}

/// A reference to a job, as the list of running ones has it.
pub fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::api_version(&()).into_owned()),
        kind: Some(Job::kind(&()).into_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn start(
    cron: &CronJob,
    jobs: &[Arc<Job>],
    now: Timestamp,
    zone: impl Fn(&str) -> Option<TimeZone>,
    plan: &mut Plan,
) {
    let spec = &cron.spec;
    let zone = match spec.time_zone.as_deref() {
        None => Some(TimeZone::UTC),
        Some(name) => zone(name),
    };
    let Some(zone) = zone else {
        let name = spec.time_zone.as_deref().unwrap_or_default();
        let message = format!("invalid timeZone: {name:?}: unknown time zone {name}");
        return plan.notes.push(Note::warning("UnknownTimeZone", message));
    };
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(fault) => {
            let message = format!("unparseable schedule: {:?}: {fault}", spec.schedule);
            return plan
                .notes
                .push(Note::warning("UnparseableSchedule", message));
        }
    };
    let next = schedule.next(now, &zone);
    plan.wake = next.and_then(|next| pods::until(next, 0, now));
    let last = plan.status.last_schedule_time.as_ref().map(|time| time.0);
    let Some(due) = most_recent(cron, &schedule, &zone, now, &mut plan.notes) else {
        return;
    };
    if last == Some(due) {
        return;
    }
    let late = |seconds| {
        due.checked_add(SignedDuration::from_secs(seconds))
            .is_ok_and(|end| end < now)
    };
    if spec.starting_deadline_seconds.is_some_and(late) {
        let message = format!("Missed scheduled time to start a job: {due}");
        return plan.notes.push(Note::warning("MissSchedule", message));
    }
    let job = new_job(cron, due, &zone);
    if jobs
        .iter()
        .any(|one| one.metadata.name == job.metadata.name)
    {
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    let running = jobs.iter().filter(|job| outcome(job).is_none());
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if plan.status.active.is_some() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.notes.push(Note::normal("JobAlreadyActive", message));
        }
        Some("Replace") => {
            plan.delete.extend(running.cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.status.last_schedule_time = Some(Time(due));
    plan.create = Some(Box::new(job));
}

/// The last scheduled time that has come and was not answered yet.
fn most_recent(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Option<Timestamp> {
    let status = cron.status.as_ref();
    let last = status.and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
    let deadline = cron.spec.starting_deadline_seconds;
    let earliest =
        deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    let mut from = earliest.map_or(since, |earliest| earliest.max(since));
    let (mut due, mut missed) = (None, 0);
    while let Some(next) = schedule.next(from, zone).filter(|next| *next <= now) {
        missed += 1;
        due = Some(next);
        from = next;
        if missed > MISSED_MAX {
            // Too many to walk through: go on shortly before now.
            from = from.max(shortly_before(schedule, zone, next, now));
        }
    }
    if missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        notes.push(Note::warning("TooManyMissedTimes", message));
    }
    due
}

/// A time before now from which on only few scheduled times are left.
fn shortly_before(
    schedule: &Schedule,
    zone: &TimeZone,
    at: Timestamp,
    now: Timestamp,
) -> Timestamp {
    let Some(next) = schedule.next(at, zone) else {
        return at;
    };
    // The distance of two neighbours, doubled for schedules that are not even.
    let step = next.as_second() - at.as_second();
    let back = SignedDuration::from_secs(step.saturating_mul(2).max(60));
    now.checked_sub(back).unwrap_or(at).max(at)
}

fn new_job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let (meta, spec) = (template.metadata.unwrap_or_default(), template.spec);
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let shown = due.to_zoned(zone.clone());
    annotations.insert(
        SCHEDULED.to_owned(),
        shown
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string()
            .replace("+00:00", "Z"),
    );
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", due.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner::controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    /// Reads a CronJob and its jobs, writes what happens next and the status.
    fn run(input: &str) -> String {
        let now = now(input);
        let crons: Vec<CronJob> = objects(input, "CronJob");
        let jobs: Vec<_> = objects::<Job>(input, "Job")
            .into_iter()
            .map(Arc::new)
            .collect();
        let zone =
            |name: &str| (name == "Asia/Tokyo").then(|| TimeZone::fixed(jiff::tz::offset(9)));
        let plan = plan(&crons[0], &jobs, now, zone);
        let mut lines = Vec::new();
        if let Some(job) = &plan.create {
            let at = &job.metadata.annotations.as_ref().unwrap()[SCHEDULED];
            lines.push(format!(
                "create {} for {at}",
                job.metadata.name.as_deref().unwrap()
            ));
        }
        lines.extend(
            plan.delete
                .iter()
                .map(|job| format!("delete {}", job.metadata.name.as_deref().unwrap())),
        );
        lines.extend(
            plan.notes
                .iter()
                .map(|note| format!("tell {}: {}", note.reason, note.message)),
        );
        lines.extend(plan.wake.map(|wait| format!("again in {wait:?}")));
        lines.push(serde_json::to_string(&plan.status).unwrap());
        lines.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("cronjob", run);
    }
}
