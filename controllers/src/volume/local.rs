//! The built-in class `local`: what its StorageClass and its volumes look like. Pure.
//!
//! The life of such a volume is told in [`peapod_api::storage`].

use std::path::Path;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ObjectMeta;
use peapod_api::labels::HOSTNAME;
use peapod_api::storage::{CLASS, FINALIZER, NODE, PROVISIONED_BY, PROVISIONER, VOLUME_PROTECTION};

use super::core::claim_reference;

/// Annotation: claims without a class get this one.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Whether a class is the default.
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(DEFAULT_CLASS))
        .is_some_and(|value| value == "true")
}

/// The built-in class; the default one unless there is another.
pub fn class(default: bool) -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: Some([(DEFAULT_CLASS.to_owned(), default.to_string())].into()),
            ..Default::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..Default::default()
    }
}

/// The name of the volume made for a claim.
pub fn name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The volume for a claim on a node, under a directory there.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
    dir: &Path,
) -> PersistentVolume {
    let name = name(claim);
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    let hostname = labels
        .and_then(|labels| labels.get(HOSTNAME))
        .unwrap_or(&node_name)
        .clone();
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|resources| resources.requests);
    let annotations = [
        (PROVISIONED_BY.to_owned(), PROVISIONER.to_owned()),
        (NODE.to_owned(), node_name),
    ];
    PersistentVolume {
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: requests,
            claim_ref: Some(claim_reference(claim)),
            local: Some(LocalVolumeSource {
                path: dir.join(&name).to_string_lossy().into_owned(),
                fs_type: None,
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(on_host(hostname)),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..Default::default()
        }),
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some(annotations.into()),
            finalizers: Some(vec![VOLUME_PROTECTION.to_owned(), FINALIZER.to_owned()]),
            ..Default::default()
        },
        status: None,
    }
}

fn on_host(hostname: String) -> VolumeNodeAffinity {
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname]),
    };
    let term = NodeSelectorTerm {
        match_expressions: Some(vec![requirement]),
        match_fields: None,
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
    }
}
