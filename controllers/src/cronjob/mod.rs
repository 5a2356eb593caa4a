//! CronJobs: a job at every scheduled time.
//!
//! [`core`] decides, [`schedule`] knows the times; this file creates and deletes the jobs.

pub mod core;
pub mod schedule;

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Api;
use kube::api::DeleteParams;

use self::core::Plan;
use crate::common::{Key, owner};
use crate::shell::context::term;
use crate::shell::error::Doing;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, claims, write};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "cronjob";
const COMPONENT: &str = "cronjob-controller";

struct CronJobs(Context);

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.cron_jobs)
        .on(&ctx.informers.jobs, |change| {
            claims::owners_of(change, "CronJob", |_| Vec::new())
        })
        .run(tasks, CronJobs(ctx.clone()));
}

impl Controller for CronJobs {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(cron) = informers.cron_jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let jobs = informers.jobs.indexed(&term::owned_by(uid));
        let zone = |name: &str| TimeZone::get(name).ok();
        let mut plan = core::plan(&cron, &jobs, Timestamp::now(), zone);
        for note in std::mem::take(&mut plan.notes) {
            self.tell(&cron, note);
        }
        for job in &plan.delete {
            self.delete(&cron, job).await?;
        }
        self.create(&cron, &mut plan).await?;
        write::status(&self.0, &*cron, cron.status.as_ref(), &plan.status).await?;
        Ok(Outcome::maybe(plan.wake))
    }
}

impl CronJobs {
    /// The job's name has its time, so that none is started twice.
    async fn create(&self, cron: &CronJob, plan: &mut Plan) -> Result<()> {
        let Some(job) = &plan.create else {
            return Ok(());
        };
        let started = match write::create(&self.0, &**job).await {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created job {name}");
                self.tell(cron, Note::normal("SuccessfulCreate", message));
                Some(created)
            }
            Err(error) if error.is_already_exists() => {
                let found = write::get::<Job>(&self.0, &Key::of(&**job)).await?;
                let uid = cron.metadata.uid.as_deref().unwrap_or_default();
                found.filter(|job| owner::is_controlled_by(&job.metadata, uid))
            }
            Err(error) if error.is_namespace_terminating() => None,
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.tell(cron, Note::warning("FailedCreate", message));
                return Err(error);
            }
        };
        if let Some(started) = started {
            let active = plan.status.active.get_or_insert_default();
            active.push(core::reference(&started));
        }
        Ok(())
    }

    /// In the background: the pods go with the job.
    async fn delete(&self, cron: &CronJob, job: &Arc<Job>) -> Result<()> {
        let key = Key::of(&**job);
        let api: Api<Job> = Api::namespaced(self.0.client.clone(), &key.namespace);
        let how = DeleteParams {
            preconditions: write::delete_exactly(&job.metadata).preconditions,
            ..DeleteParams::background()
        };
        let deleted = api.delete(&key.name, &how).await;
        let gone = deleted.unless_gone(|| format!("delete {}", write::label::<Job>(&key)))?;
        if gone.is_some() {
            let message = format!("Deleted job {}", key.name);
            self.tell(cron, Note::normal("SuccessfulDelete", message));
        }
        Ok(())
    }

    fn tell(&self, cron: &CronJob, note: Note) {
        self.0.events.record(COMPONENT, cron, note);
    }
}
