//! Jobs: pods until enough of them have succeeded, and what is left of them afterwards.
//!
//! [`core`] decides, with [`tally`], [`policy`] and [`indexes`]; [`pod`] makes the pods; this
//! file claims, creates, deletes and counts.

pub mod core;
pub mod indexes;
mod pod;
mod policy;
mod tally;

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch};
use peapod_api::selector::Selector;
use serde_json::json;

pub use self::pod::INDEX_FAILURES;

use self::core::{Observed, Plan};
use crate::common::{Key, merge};
use crate::shell::error::Doing;
use crate::shell::pod_control::PodControl;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, claims, write};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "job";
const COMPONENT: &str = "job-controller";
/// Who runs a job that names nobody.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Jobs {
    ctx: Context,
    pods: PodControl,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.jobs)
        .on(&ctx.informers.pods, move |change| {
            let all = &informers.jobs;
            let orphan = |pod: &Pod| claims::possible_owners(all, &pod.metadata, selector);
            claims::owners_of(change, "Job", orphan)
        })
        .run(
            tasks,
            Jobs {
                ctx: ctx.clone(),
                pods: PodControl::new(ctx, COMPONENT).holding(pod::FINALIZER),
            },
        );
}

fn selector(job: &Job) -> Result<Selector> {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector else {
        return Ok(Selector::nothing());
    };
    claims::selector_of(job, Selector::from_label_selector(selector))
}

fn is_ours(job: &Job) -> bool {
    let manager = job
        .spec
        .as_ref()
        .and_then(|spec| spec.managed_by.as_deref());
    manager.is_none_or(|manager| manager == MANAGER)
}

impl Controller for Jobs {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(job) = self.ctx.informers.jobs.get(key) else {
            self.pods.forget(key);
            self.release_orphans(key).await?;
            return Ok(Outcome::Done);
        };
        if !is_ours(&job) {
            return Ok(Outcome::Done);
        }
        let pods = self.pods.claim(&*job, &selector(&job)?, |_| true).await?;
        let waiting = self.pods.unsettled(key, &pods);
        let observed = Observed {
            job: &job,
            pods: &pods,
            settled: waiting.is_none(),
        };
        let plan = core::plan(&observed, Timestamp::now());
        // The lists of the ended must be written before their finalizers go.
        self.write_status(key, &job, &plan).await?;
        for note in plan.notes {
            self.pods.tell(&*job, note);
        }
        release_all(&self.ctx, &plan.release).await?;
        self.pods.delete_all(&*job, &plan.stop).await?;
        release_all(&self.ctx, &plan.drop).await?;
        self.pods.delete_all(&*job, &plan.drop).await?;
        self.pods.create_all(&*job, &plan.create).await?;
        if plan.expired {
            self.expire(key, &job).await?;
        }
        Ok(Outcome::maybe(plan.wake.into_iter().chain(waiting).min()))
    }
}

impl Jobs {
    /// Bound to the resourceVersion: counts made from an old status would count twice.
    async fn write_status(&self, key: &Key, job: &Job, plan: &Plan) -> Result<()> {
        let old = job
            .status
            .as_ref()
            .map_or(serde_json::Value::Null, merge::to_value);
        let Some(patch) = merge::diff(&old, &merge::to_value(&plan.status)) else {
            return Ok(());
        };
        let meta =
            json!({"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": meta, "status": patch}));
        let api: Api<Job> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let written = api
            .patch_status(&key.name, &write::patch_params(), &patch)
            .await;
        written.unless_gone(|| format!("update status of {}", write::label::<Job>(key)))?;
        Ok(())
    }

    /// The pods of a job that is gone: nobody counts them any more.
    async fn release_orphans(&self, key: &Key) -> Result<()> {
        let all = self.ctx.informers.pods.in_namespace(&key.namespace);
        let left: Vec<_> = all
            .into_iter()
            .filter(|one| pod::is_tracked(one))
            .filter(|one| {
                let owner = crate::common::owner::controller_of(&one.metadata);
                owner.is_some_and(|owner| owner.kind == "Job" && owner.name == key.name)
            })
            .collect();
        release_all(&self.ctx, &left).await
    }

    /// Deletes a job whose time after its end is over, its pods first.
    async fn expire(&self, key: &Key, job: &Job) -> Result<()> {
        let api: Api<Job> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let how = DeleteParams {
            preconditions: write::delete_exactly(&job.metadata).preconditions,
            ..DeleteParams::foreground()
        };
        let deleted = api.delete(&key.name, &how).await;
        deleted.unless_gone(|| format!("delete {}", write::label::<Job>(key)))?;
        Ok(())
    }
}

/// Takes the finalizer from pods that have it.
async fn release_all(ctx: &Context, all: &[Arc<Pod>]) -> Result<()> {
    let tracked = all.iter().filter(|one| pod::is_tracked(one));
    let releases = tracked.map(|one| release(ctx, one));
    join_all(releases).await.into_iter().collect()
}

async fn release(ctx: &Context, one: &Pod) -> Result<()> {
    let mut finalizers = one.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != pod::FINALIZER);
    let patch = json!({"metadata": {
        "uid": one.metadata.uid,
        "resourceVersion": one.metadata.resource_version,
        "finalizers": finalizers,
    }});
    match write::patch::<Pod>(ctx, &Key::of(one), patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
