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
use std::time::{Duration, Instant};

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
use crate::common::{Key, merge, pods};
use crate::replicaset::owners_of;
use crate::shell::context::{Informers, term};
use crate::shell::error::Doing;
use crate::shell::events::Note;
use crate::shell::expectations::Expectations;
use crate::shell::{
    Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, informer, write,
};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "job";
const COMPONENT: &str = "job-controller";
/// Who runs a job that names nobody.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Jobs {
    ctx: Context,
    expect: Expectations,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.jobs)
        .on(&ctx.informers.pods, move |change| {
            let orphan = |pod: &Pod| possible_owners(&informers, pod);
            owners_of(change, "Job", orphan)
        })
        .run(
            tasks,
            Jobs {
                ctx: ctx.clone(),
                expect: Expectations::default(),
            },
        );
}

fn possible_owners(informers: &Informers, pod: &Pod) -> Vec<Key> {
    let Some(labels) = &pod.metadata.labels else {
        return Vec::new();
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let jobs = informers.jobs.in_namespace(namespace);
    let matching = jobs
        .iter()
        .filter(|job| selector(job).is_ok_and(|s| s.matches(labels)));
    matching.map(|job| Key::of(&**job)).collect()
}

fn selector(job: &Job) -> Result<Selector> {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector else {
        return Ok(Selector::nothing());
    };
    let parsed = Selector::from_label_selector(selector);
    parsed.map_err(|fault| Error::Object {
        object: write::label::<Job>(&Key::of(job)),
        fault: format!("spec.selector: {fault}"),
    })
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
            self.expect.forget(key);
            self.release_orphans(key).await?;
            return Ok(Outcome::Done);
        };
        if !is_ours(&job) {
            return Ok(Outcome::Done);
        }
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.ctx.informers.pods.indexed(&term::owned_by(uid));
        let orphans = self
            .ctx
            .informers
            .pods
            .indexed(&term::orphans_of(&key.namespace));
        candidates.extend(orphans);
        let pods = claims::claim_all(&self.ctx, &*job, &selector(&job)?, candidates).await?;
        let waiting = self.unsettled(key, &pods);
        let observed = Observed {
            job: &job,
            pods: &pods,
            settled: waiting.is_none(),
        };
        let plan = core::plan(&observed, Timestamp::now());
        // The lists of the ended must be written before their finalizers go.
        self.write_status(key, &job, &plan).await?;
        for note in plan.notes {
            self.tell(&job, note);
        }
        release_all(&self.ctx, &plan.release).await?;
        self.delete(key, &job, &plan.stop).await?;
        release_all(&self.ctx, &plan.drop).await?;
        self.delete(key, &job, &plan.drop).await?;
        self.create(key, &job, &plan.create).await?;
        if plan.expired {
            self.expire(key, &job).await?;
        }
        Ok(Outcome::maybe(plan.wake.into_iter().chain(waiting).min()))
    }
}

impl Jobs {
    /// How much longer to wait until the cache shows our own writes.
    fn unsettled(&self, key: &Key, owned: &[Arc<Pod>]) -> Option<Duration> {
        let shown = self.ctx.informers.pods.revision();
        let alive = |uid: &str| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_deref() == Some(uid);
            owned
                .iter()
                .find(same)
                .is_some_and(|pod| !pods::is_terminating(pod))
        };
        self.expect.unmet(key, shown, alive, Instant::now())
    }

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

    /// Creates in batches of 1, 2, 4, ... and stops at the first batch with a failure.
    async fn create(&self, key: &Key, job: &Job, pods: &[Pod]) -> Result<()> {
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(left.len().min(batch));
            let creations = now.iter().map(|pod| self.create_one(key, job, pod));
            let created: Result<()> = join_all(creations).await.into_iter().collect();
            created?;
            (left, batch) = (rest, batch * 2);
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, job: &Job, pod: &Pod) -> Result<()> {
        match write::create(&self.ctx, pod).await {
            Ok(created) => {
                let revision = informer::revision(&created);
                self.expect.written(key, revision, Instant::now());
                let name = created.metadata.name.unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.tell(job, Note::normal("SuccessfulCreate", message));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.tell(job, Note::warning("FailedCreate", message));
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, job: &Job, pods: &[Arc<Pod>]) -> Result<()> {
        let deletions = pods.iter().map(|pod| self.delete_one(key, job, pod));
        join_all(deletions).await.into_iter().collect()
    }

    async fn delete_one(&self, key: &Key, job: &Job, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.expect.deleted(key, uid, Instant::now());
        if let Err(error) = write::delete::<Pod>(&self.ctx, &pod.metadata).await {
            self.expect.forget(key);
            let message = format!("Error deleting: {error}");
            self.tell(job, Note::warning("FailedDelete", message));
            return Err(error);
        }
        let message = format!("Deleted pod: {name}");
        self.tell(job, Note::normal("SuccessfulDelete", message));
        Ok(())
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

    fn tell(&self, job: &Job, note: Note) {
        self.ctx.events.record(COMPONENT, job, note);
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
