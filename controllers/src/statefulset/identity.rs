//! What makes a pod of a StatefulSet that very pod: its ordinal, its names, its claims. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;

use crate::common::history::REVISION_HASH;
use crate::common::owner;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name, if it is one of this set's names.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok().filter(|number| *number >= 0)?;
    (number.to_string() == digits).then_some(number)
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The pod of an ordinal, of a revision.
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let spec = &set.spec;
    let name = format!("{}-{ordinal}", name(&set.metadata));
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let mut pod = template.spec.clone().unwrap_or_default();
    pod.hostname = Some(name.clone());
    pod.subdomain = spec.service_name.clone().filter(|name| !name.is_empty());
    let templates = spec.volume_claim_templates.iter().flatten();
    let claimed: Vec<Volume> = templates.map(|claim| volume(set, claim, ordinal)).collect();
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| claimed.iter().all(|own| own.name != volume.name));
    volumes.extend(claimed);
    if volumes.is_empty() {
        pod.volumes = None;
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod),
        status: None,
    }
}

fn volume(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> Volume {
    Volume {
        name: name(&claim.metadata).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, claim, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    }
}

fn claim_name(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!(
        "{}-{}-{ordinal}",
        name(&claim.metadata),
        name(&set.metadata)
    )
}

/// The names of the claims of an ordinal.
pub fn claim_names(set: &StatefulSet, ordinal: i32) -> Vec<String> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|claim| claim_name(set, claim, ordinal))
        .collect()
}

/// The claims of an ordinal.
pub fn new_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    let selected = set.spec.selector.match_labels.clone().unwrap_or_default();
    let one = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        let owned = Retention::of(set).deleted_with_set;
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(set, template, ordinal)),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels).filter(|labels: &BTreeMap<_, _>| !labels.is_empty()),
                annotations: template.metadata.annotations.clone(),
                owner_references: owned.then(|| vec![set_reference(set)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    templates.map(one).collect()
}

/// When the claims of a set go.
pub struct Retention {
    deleted_with_set: bool,
    deleted_with_pod: bool,
}

impl Retention {
    /// As the set says.
    pub fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let is_delete = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
        Self {
            deleted_with_set: is_delete(policy.and_then(|p| p.when_deleted.as_ref())),
            deleted_with_pod: is_delete(policy.and_then(|p| p.when_scaled.as_ref())),
        }
    }
}

fn set_reference(set: &StatefulSet) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: None,
        ..owner::controller_reference(set)
    }
}

fn pod_reference(pod: &Pod) -> OwnerReference {
    OwnerReference {
        api_version: Pod::api_version(&()).into_owned(),
        kind: Pod::kind(&()).into_owned(),
        name: name(&pod.metadata).to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// The owners that a claim should have, if it has not: the garbage collector then deletes it
/// when the set's policy says so. A claim of a pod that is scaled away goes with the pod.
pub fn claim_owners(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let retention = Retention::of(set);
    let by_pod = retention.deleted_with_pod && condemned;
    let by_set = retention.deleted_with_set && !by_pod;
    let present = claim.metadata.owner_references.clone().unwrap_or_default();
    let set_uid = set.metadata.uid.as_deref().unwrap_or_default();
    let is_pod = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == name(&pod.metadata);
    let mut wanted: Vec<OwnerReference> = present
        .iter()
        .filter(|owner| owner.uid != set_uid && !is_pod(owner))
        .cloned()
        .collect();
    if by_set {
        let kept = present.iter().find(|owner| owner.uid == set_uid).cloned();
        wanted.push(kept.unwrap_or_else(|| set_reference(set)));
    }
    if by_pod {
        wanted.push(pod_reference(pod));
    }
    (wanted != present).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_of_names() {
        assert_eq!(ordinal("web", "web-0"), Some(0));
        assert_eq!(ordinal("web", "web-12"), Some(12));
        for other in [
            "web", "web-", "web-x", "web-01", "web--1", "web-a-1", "db-1",
        ] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }
}
