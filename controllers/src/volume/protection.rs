//! Claims and volumes that are in use outlive their deletion: the protection finalizers, and
//! the finalizer of local volumes whose node is gone.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use peapod_api::storage::{CLAIM_PROTECTION, FINALIZER, NODE, VOLUME_PROTECTION};
use serde_json::json;

use crate::common::{Key, pods};
use crate::shell::context::term;
use crate::shell::error::Doing;
use crate::shell::informer::Kind;
use crate::shell::write::Scope;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

struct Claims(Context);
struct Volumes(Context);

/// Wires both loops.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, "pvcprotection")
        .on_self(&ctx.informers.claims)
        .on(&ctx.informers.pods, |change| {
            let ended = change.new.as_deref().is_none_or(pods::is_finished);
            let pod = change.latest().filter(|_| ended);
            pod.map(pods::claims).unwrap_or_default()
        })
        .run(tasks, Claims(ctx.clone()));
    let volumes = ctx.informers.volumes.clone();
    Loop::new(ctx, "pvprotection")
        .on_self(&ctx.informers.volumes)
        .on(&ctx.informers.nodes, move |change| {
            let gone = change.new.is_none();
            let volumes = if gone { volumes.all() } else { Vec::new() };
            volumes.into_iter().map(|volume| Key::of(&*volume))
        })
        .run(tasks, Volumes(ctx.clone()));
}

/// What to do about a finalizer.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Add,
    Remove,
}

fn step(meta: &ObjectMeta, finalizer: &str, in_use: bool) -> Step {
    let has = meta
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == finalizer);
    match (has, meta.deletion_timestamp.is_some()) {
        (false, false) => Step::Add,
        (true, true) if !in_use => Step::Remove,
        _ => Step::Keep,
    }
}

async fn carry_out<K: Kind + Scope>(
    ctx: &Context,
    object: &K,
    finalizer: &str,
    step: Step,
) -> Result<()> {
    let meta = object.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    match step {
        Step::Keep => return Ok(()),
        Step::Add => finalizers.push(finalizer.to_owned()),
        Step::Remove => finalizers.retain(|name| name != finalizer),
    }
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    match write::patch::<K>(ctx, &Key::of(object), patch).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

/// Whether a pod keeps its claims: it has a node, and has not ended.
fn uses(pod: &Pod) -> bool {
    !pods::node_name(pod).is_empty() && !pods::is_finished(pod)
}

impl Controller for Claims {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(claim) = self.0.informers.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let known = self.0.informers.pods.indexed(&term::using_claim(key));
        let mut in_use = known.iter().any(|pod| uses(pod));
        let mut step = step(&claim.metadata, CLAIM_PROTECTION, in_use);
        if step == Step::Remove {
            // The cache may lack a pod that was just scheduled.
            in_use = self.is_used_live(key).await?;
            step = self::step(&claim.metadata, CLAIM_PROTECTION, in_use);
        }
        carry_out::<PersistentVolumeClaim>(&self.0, &claim, CLAIM_PROTECTION, step).await?;
        Ok(Outcome::Done)
    }
}

impl Claims {
    async fn is_used_live(&self, key: &Key) -> Result<bool> {
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), &key.namespace);
        let live = api.list(&ListParams::default()).await;
        let live = live.doing(|| format!("list pods of namespace {}", key.namespace))?;
        Ok(live
            .iter()
            .any(|pod| uses(pod) && pods::claims(pod).contains(key)))
    }
}

impl Controller for Volumes {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(volume) = self.0.informers.volumes.get(key) else {
            return Ok(Outcome::Done);
        };
        let phase = volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let protection = step(&volume.metadata, VOLUME_PROTECTION, phase == Some("Bound"));
        if protection != Step::Keep {
            carry_out(&self.0, &*volume, VOLUME_PROTECTION, protection).await?;
        } else if self.is_stranded(&volume).await? {
            carry_out(&self.0, &*volume, FINALIZER, Step::Remove).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Volumes {
    /// Whether a local volume waits for a node that will never come back to clean it up.
    async fn is_stranded(&self, volume: &PersistentVolume) -> Result<bool> {
        if step(&volume.metadata, FINALIZER, false) != Step::Remove {
            return Ok(false);
        }
        let annotations = volume.metadata.annotations.as_ref();
        let Some(node) = annotations.and_then(|all| all.get(NODE)) else {
            return Ok(true);
        };
        let node = Key::cluster(node);
        if self.0.informers.nodes.get(&node).is_some() {
            return Ok(false);
        }
        Ok(write::get::<Node>(&self.0, &node).await?.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_come_at_once_and_go_with_the_last_user() {
        let meta = |finalizers: &[&str], deleting: bool| -> ObjectMeta {
            let deleting = deleting.then_some("2026-01-01T00:00:00Z");
            let meta = json!({"finalizers": finalizers, "deletionTimestamp": deleting});
            serde_json::from_value(meta).unwrap()
        };
        for (finalizers, deleting, in_use, expected) in [
            (&[][..], false, false, Step::Add),
            (&["f"], false, false, Step::Keep),
            (&["f"], true, true, Step::Keep),
            (&["f"], true, false, Step::Remove),
            (&["other"], true, false, Step::Keep),
        ] {
            let meta = meta(finalizers, deleting);
            assert_eq!(
                step(&meta, "f", in_use),
                expected,
                "{finalizers:?} {deleting} {in_use}"
            );
        }
    }
}
