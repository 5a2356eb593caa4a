//! Deployments: rollouts of ReplicaSets.
//!
//! [`core`] decides; [`limits`] is its arithmetic, [`revision`] its book-keeping, [`status`]
//! what it shows; [`template`] tells templates apart. This file claims ReplicaSets and carries
//! the plan out.

pub mod core;
mod limits;
mod revision;
#[cfg(test)]
mod simulation;
mod status;
pub mod template;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use peapod_api::selector::Selector;
use serde_json::json;

use self::core::{Observed, Plan};
use crate::common::{Key, owner, pods};
use crate::shell::context::{Informers, term};
use crate::shell::events::Note;
use crate::shell::expectations::Expectations;
use crate::shell::{
    Change, Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, informer, write,
};

const NAME: &str = "deployment";
const COMPONENT: &str = "deployment-controller";

struct Deployments {
    ctx: Context,
    expect: Expectations,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let (of_sets, of_pods) = (ctx.informers.clone(), ctx.informers.clone());
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.deployments)
        .on(&ctx.informers.replica_sets, move |change| {
            let all = &of_sets.deployments;
            let orphan = |set: &ReplicaSet| claims::possible_owners(all, &set.metadata, selector);
            claims::owners_of(change, "Deployment", orphan)
        })
        .on(&ctx.informers.pods, move |change| {
            recreating_owner(&of_pods, change)
        })
        .run(
            tasks,
            Deployments {
                ctx: ctx.clone(),
                expect: Expectations::default(),
            },
        );
}

/// The Deployment that waits for its old pods to be gone, when one of them ends.
fn recreating_owner(informers: &Informers, change: &Change<Pod>) -> Option<Key> {
    if change
        .new
        .as_deref()
        .is_some_and(|pod| !pods::is_finished(pod))
    {
        return None;
    }
    let owner = owner::controller_of(&change.latest()?.metadata)?;
    let namespace = &change.key.namespace;
    let set = informers
        .replica_sets
        .get(&Key::new(namespace, &owner.name))?;
    let owner = owner::controller_of(&set.metadata)?;
    let key = Key::new(namespace, &owner.name);
    let deployment = informers.deployments.get(&key)?;
    limits::is_recreate(&deployment).then_some(key)
}

fn selector(deployment: &Deployment) -> Result<Selector> {
    claims::selector_of(
        deployment,
        Selector::from_label_selector(&deployment.spec.selector),
    )
}

impl Controller for Deployments {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(deployment) = self.ctx.informers.deployments.get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let shown = self.ctx.informers.replica_sets.revision();
        if let Some(wait) = self.expect.unmet(key, shown, |_| false, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let selector = selector(&deployment)?;
        if selector.is_everything() {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.tell(&deployment, Note::warning("SelectingAll", message));
            return Ok(Outcome::Done);
        }
        let sets = self.ctx.informers.replica_sets.in_namespace(&key.namespace);
        let sets = claims::claim_all(&self.ctx, &*deployment, &selector, sets, None).await?;
        let observed = Observed {
            deployment: &deployment,
            with_pods: self.with_pods(&sets),
            sets,
        };
        let plan = core::plan(observed, Timestamp::now());
        self.carry_out(key, &deployment, plan).await
    }
}

impl Deployments {
    fn with_pods(&self, sets: &[Arc<ReplicaSet>]) -> Vec<String> {
        let uids = sets.iter().filter_map(|set| set.metadata.uid.clone());
        uids.filter(|uid| {
            let owned = self.ctx.informers.pods.indexed(&term::owned_by(uid));
            owned.iter().any(|pod| !pods::is_finished(pod))
        })
        .collect()
    }

    async fn carry_out(&self, key: &Key, deployment: &Deployment, plan: Plan) -> Result<Outcome> {
        let mut status = plan.status;
        if let Some(set) = &plan.create {
            match write::create(&self.ctx, set).await {
                Ok(created) => {
                    self.expect
                        .written(key, informer::revision(&created), Instant::now());
                }
                Err(error) if error.is_already_exists() => {
                    return self.resolve_collision(key, deployment, set, error).await;
                }
                Err(error) if error.is_namespace_terminating() => return Ok(Outcome::Done),
                Err(error) => {
                    let message = format!("Failed to create new replica set: {error}");
                    self.tell(deployment, Note::warning("ReplicaSetCreateError", message));
                    return Err(error);
                }
            }
        }
        for (old, new) in &plan.update {
            if let Some(written) = write::update(&self.ctx, &**old, new).await? {
                self.expect
                    .written(key, informer::revision(&written), Instant::now());
            }
        }
        for set in &plan.delete {
            write::delete::<ReplicaSet>(&self.ctx, &set.metadata).await?;
        }
        if let Some(number) = plan.revision {
            let annotations = json!({ revision::REVISION: number });
            let patch = json!({"metadata": {"annotations": annotations}});
            // With the status: as a change of the object it would count as a new generation.
            write::patch_status::<Deployment>(&self.ctx, key, patch).await?;
        }
        for note in plan.notes {
            self.tell(deployment, note);
        }
        let old = deployment.status.as_ref();
        status.collision_count = old.and_then(|old| old.collision_count);
        write::status(&self.ctx, deployment, old, &status).await?;
        Ok(Outcome::maybe(plan.wake))
    }

    /// The name is taken: by what an earlier try of ours created, which the watch will show, or
    /// by a hash collision, which the next hash avoids.
    async fn resolve_collision(
        &self,
        key: &Key,
        deployment: &Deployment,
        wanted: &ReplicaSet,
        error: Error,
    ) -> Result<Outcome> {
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        let set_key = Key::new(&key.namespace, name);
        let found = write::get::<ReplicaSet>(&self.ctx, &set_key).await?;
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let ours = found.is_some_and(|found| {
            let template = found.spec.template.as_ref();
            owner::is_controlled_by(&found.metadata, uid)
                && template.is_some_and(|t| template::same(t, &deployment.spec.template))
        });
        if !ours {
            let mut new = deployment.status.clone().unwrap_or_default();
            new.collision_count = Some(new.collision_count.unwrap_or(0) + 1);
            let old = deployment.status.as_ref();
            write::status(&self.ctx, deployment, old, &new).await?;
        }
        Err(error)
    }

    fn tell(&self, deployment: &Deployment, note: Note) {
        self.ctx.events.record(COMPONENT, deployment, note);
    }
}
