//! The claims of generic ephemeral volumes: each is made from its pod's template, lives as long as
//! the pod, and is the pod's own. Upstream calls the loop `ephemeral-volume-controller`.
//!
//! The core is [`decide`].

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod, Volume,
};
use kube::api::ObjectMeta;

use crate::common::{Key, owner, pods};
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "ephemeral_volume";
const COMPONENT: &str = "ephemeral_volume";

struct Ephemeral(Context);

/// What to do about one volume.
#[derive(Debug, PartialEq)]
enum Step {
    /// The claim is there.
    Nothing,
    /// Make it.
    Create(Box<PersistentVolumeClaim>),
    /// A claim of that name is there and is not the pod's, which would use what it must not.
    Taken(String),
}

/// Wires the loop; its keys are pods.
pub(super) fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, NAME)
        .on(&ctx.informers.pods, |change| {
            let pod = change.new.as_deref().filter(|pod| wants(pod));
            pod.map(Key::of)
        })
        .on(&ctx.informers.claims, |change| {
            // A claim that somebody deleted is made again.
            let gone = change.old.as_deref().filter(|_| change.new.is_none());
            let owner = gone.and_then(|claim| owner::controller_of(&claim.metadata));
            let pod = owner.filter(|owner| owner.kind == "Pod");
            pod.map(|pod| Key::new(&change.key.namespace, pod.name.clone()))
        })
        .run(tasks, Ephemeral(ctx.clone()));
}

fn templates(pod: &Pod) -> impl Iterator<Item = (&Volume, &PersistentVolumeClaimTemplate)> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let source = volume.ephemeral.as_ref()?;
        Some((volume, source.volume_claim_template.as_ref()?))
    })
}

/// Whether a pod is alive and has such volumes. One that ended needs no claim again.
fn wants(pod: &Pod) -> bool {
    let alive = pod.metadata.deletion_timestamp.is_none() && !pods::is_finished(pod);
    alive && templates(pod).next().is_some()
}

fn decide(
    pod: &Pod,
    volume: &Volume,
    template: &PersistentVolumeClaimTemplate,
    claim: Option<&PersistentVolumeClaim>,
) -> Step {
    let name = pods::claim_name(pod, volume);
    if let Some(claim) = claim {
        let owner = owner::controller_of(&claim.metadata);
        let own = owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
        return match own {
            true => Step::Nothing,
            false => Step::Taken(format!(
                "ephemeral volume {}: PVC {}/{name} was not created for the pod: delete the claim or rename the volume",
                volume.name,
                pod.metadata.namespace.as_deref().unwrap_or_default(),
            )),
        };
    }
    let meta = template.metadata.clone().unwrap_or_default();
    Step::Create(Box::new(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![owner::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }))
}

impl Controller for Ephemeral {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(pod) = informers.pods.get(key).filter(|pod| wants(pod)) else {
            return Ok(Outcome::Done);
        };
        for (volume, template) in templates(&pod) {
            let name = Key::new(&key.namespace, pods::claim_name(&pod, volume));
            let claim = informers.claims.get(&name);
            match decide(&pod, volume, template, claim.as_deref()) {
                Step::Nothing => {}
                Step::Create(claim) => match write::create(&self.0, &*claim).await {
                    // The cache will show whose it is, and wakes this if it goes.
                    Err(error) if error.is_already_exists() => {}
                    Err(error) if error.is_namespace_terminating() => {}
                    result => result.map(drop)?,
                },
                Step::Taken(why) => {
                    let note = Note::warning("FailedBinding", why);
                    self.0.events.record(COMPONENT, &*pod, note);
                }
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {
                "volumeClaimTemplate": {
                    "metadata": {"labels": {"kind": "scratch"}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Mi"}},
                    },
                },
            }}]},
        }))
        .unwrap()
    }

    fn step(pod: &Pod, claim: Option<&PersistentVolumeClaim>) -> Step {
        let (volume, template) = templates(pod).next().unwrap();
        decide(pod, volume, template, claim)
    }

    #[test]
    fn the_claim_is_made_once_and_is_the_pods() {
        let pod = pod();
        let Step::Create(claim) = step(&pod, None) else {
            panic!("no claim is made");
        };
        let meta = &claim.metadata;
        assert_eq!(meta.name.as_deref(), Some("web-scratch"));
        assert_eq!(meta.labels.as_ref().unwrap()["kind"], "scratch");
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Pod", "u"));
        assert_eq!(step(&pod, Some(&claim)), Step::Nothing);
    }

    #[test]
    fn a_claim_of_somebody_else_is_not_used() {
        let pod = pod();
        let Step::Taken(why) = step(&pod, Some(&PersistentVolumeClaim::default())) else {
            panic!("the claim of somebody else was taken for the pod's");
        };
        assert!(why.contains("d/web-scratch"), "{why}");
    }

    #[test]
    fn pods_that_go_or_ended_get_none() {
        let mut pod = pod();
        assert!(wants(&pod));
        pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
        assert!(!wants(&pod));
    }
}
