//! What a PersistentVolume or a pod says of a CSI volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    SecretReference,
};
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;
use sha2::{Digest, Sha256};

use super::layout::hex;

/// A volume, as it was declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// Name of the driver.
    pub driver: String,
    /// What the driver calls the volume.
    pub handle: String,
    /// Name of the PersistentVolume; of one that a pod brings, its name in the pod. Unique among
    /// the CSI volumes of a pod, and part of paths.
    pub name: String,
    /// Whether it lives and dies with the pod (`csi` in the pod itself).
    pub ephemeral: bool,
    /// Whether it is a device rather than a file system.
    pub block: bool,
    /// Whether it is published for reading only.
    pub read_only: bool,
    /// The type of its file system; empty for the driver's choice.
    pub fs_type: String,
    /// Options of its mount.
    pub mount_options: Vec<String>,
    /// Its access modes; upstream asks the driver for the first.
    pub access_modes: Vec<String>,
    /// `volumeAttributes`
    pub attributes: BTreeMap<String, String>,
    /// Size, bytes, that the volume has by now; 0 if it says none.
    pub capacity_bytes: i64,
    /// The claim that it is bound to.
    pub claim: Option<Claim>,
    /// For staging, publishing and expanding.
    pub secrets: Secrets,
}

/// A claim, as far as its volume's size goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What its status says that it has, bytes.
    pub capacity_bytes: i64,
    /// Whether its status says that the node is to let the volume grow.
    pub pending: bool,
}

/// The Secrets that a driver needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    /// `nodeStageSecretRef`
    pub stage: Option<SecretReference>,
    /// `nodePublishSecretRef`
    pub publish: Option<SecretReference>,
    /// `nodeExpandSecretRef`
    pub expand: Option<SecretReference>,
}

// === impl Spec ===

impl Spec {
    /// A PersistentVolume of CSI, used through a claim; `None` if it is of another type.
    pub fn of_volume(
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
        read_only: bool,
    ) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let status = claim.status.as_ref();
        Some(Self {
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            name: volume.metadata.name.clone().unwrap_or_default(),
            ephemeral: false,
            block: spec.volume_mode.as_deref() == Some("Block"),
            read_only: read_only || csi.read_only == Some(true),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            capacity_bytes: storage(spec.capacity.as_ref()),
            claim: Some(Claim {
                namespace: claim.metadata.namespace.clone().unwrap_or_default(),
                name: claim.metadata.name.clone().unwrap_or_default(),
                capacity_bytes: storage(status.and_then(|status| status.capacity.as_ref())),
                pending: status.is_some_and(pending),
            }),
            secrets: Secrets {
                stage: csi.node_stage_secret_ref.clone(),
                publish: csi.node_publish_secret_ref.clone(),
                expand: csi.node_expand_secret_ref.clone(),
            },
        })
    }

    /// A volume that a pod brings with it.
    pub fn of_pod(source: &CSIVolumeSource, name: &str, namespace: &str, pod_uid: &str) -> Self {
        let secret = source.node_publish_secret_ref.as_ref();
        let digest = Sha256::digest(format!("{pod_uid}{name}"));
        Self {
            driver: source.driver.clone(),
            // As upstream makes it.
            handle: format!("csi-{}", hex(&digest)),
            name: name.to_owned(),
            ephemeral: true,
            read_only: source.read_only == Some(true),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            secrets: Secrets {
                publish: secret.map(|secret| SecretReference {
                    name: Some(secret.name.clone()),
                    namespace: Some(namespace.to_owned()),
                }),
                ..Secrets::default()
            },
            ..Self::default()
        }
    }

    /// Whether several pods must not use it, on one node or on several.
    pub fn is_for_one_pod(&self) -> bool {
        self.access_modes
            .iter()
            .any(|mode| mode == "ReadWriteOncePod")
    }

    /// Whether the volume has grown since the claim was told of its size, or is said to have.
    pub fn has_grown(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| {
            let told = claim.capacity_bytes;
            claim.pending || told > 0 && self.capacity_bytes > told
        })
    }

    /// The name of the object that attaches it to a node, upstream's.
    pub fn attachment(&self, node: &str) -> String {
        let digest = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        format!("csi-{}", hex(&digest))
    }
}

/// The name of a volume in a Node's status, upstream's.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Whether a claim waits for the node: by upstream's condition, or by what it says of its resources.
fn pending(status: &PersistentVolumeClaimStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    let waits =
        conditions.any(|one| one.type_ == "FileSystemResizePending" && one.status == "True");
    let resources = status.allocated_resource_statuses.as_ref();
    let storage = resources.and_then(|all| all.get("storage"));
    waits
        || storage.is_some_and(|word| word == "NodeResizePending" || word == "NodeResizeInProgress")
}

type Amounts = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn storage(amounts: Option<&Amounts>) -> i64 {
    let text = amounts.and_then(|amounts| amounts.get("storage"));
    let amount = text.and_then(|text| Quantity::try_from(text).ok());
    amount.map_or(0, |amount| amount.units())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(status: Value) -> Spec {
        let volume = json!({"metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOncePod"],
            "csi": {"driver": "d.example.com", "volumeHandle": "vol-1"}}});
        let claim = json!({"metadata": {"name": "c", "namespace": "ns"}, "status": status});
        let claim = serde_json::from_value(claim).unwrap();
        Spec::of_volume(&serde_json::from_value(volume).unwrap(), &claim, false).unwrap()
    }

    #[test]
    fn growth_is_seen_by_size_and_by_what_the_claim_says() {
        assert!(!of(json!({})).has_grown(), "it is not bound yet");
        assert!(!of(json!({"capacity": {"storage": "2Gi"}})).has_grown());
        assert!(of(json!({"capacity": {"storage": "1Gi"}})).has_grown());
        let condition = json!([{"type": "FileSystemResizePending", "status": "True"}]);
        assert!(of(json!({"capacity": {"storage": "2Gi"}, "conditions": condition})).has_grown());
        let waits = json!({"storage": "NodeResizePending"});
        assert!(of(json!({"allocatedResourceStatuses": waits})).has_grown());
        let elsewhere = json!({"storage": "ControllerResizeInProgress"});
        assert!(!of(json!({"allocatedResourceStatuses": elsewhere})).has_grown());
    }

    #[test]
    fn names_as_upstream_makes_them() {
        let spec = of(json!({}));
        assert!(spec.is_for_one_pod());
        assert_eq!(
            unique_name(&spec.driver, &spec.handle),
            "kubernetes.io/csi/d.example.com^vol-1"
        );
        assert_eq!(spec.attachment("n").len(), "csi-".len() + 64);
        assert_ne!(spec.attachment("n"), spec.attachment("m"));
    }
}
