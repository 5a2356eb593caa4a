//! The parts of pods and nodes that scheduling reads.
//!
//! A full Pod costs several times as much to decode and to hold; the scheduler sees every change
//! of every pod, so it decodes only what it uses and skips the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ContainerImage, PersistentVolumeClaimVolumeSource, PodCondition, PodSchedulingGate,
    Taint, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A pod, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Name, namespace, uid, version, labels, owners, creation and deletion.
    #[serde(default, deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub spec: PodSpec,
    /// What became of it.
    #[serde(default)]
    pub status: PodStatus,
}

/// A pod's `spec`, reduced; upstream's fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)] // the fields are the API's own
pub struct PodSpec {
    pub node_name: Option<String>,
    pub scheduler_name: Option<String>,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<Affinity>,
    pub tolerations: Vec<Toleration>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    pub scheduling_gates: Vec<PodSchedulingGate>,
    pub overhead: Option<BTreeMap<String, Quantity>>,
    pub resources: Option<Requirements>,
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
}

/// A container, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Container {
    pub image: Option<String>,
    pub restart_policy: Option<String>,
    pub resources: Option<Requirements>,
    pub ports: Vec<Port>,
}

/// `resources`, reduced to the requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Requirements {
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// A container's port, reduced to what it takes of the node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Port {
    pub host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

/// A volume, reduced to the claims.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

/// A pod's `status`, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PodStatus {
    pub phase: Option<String>,
    pub nominated_node_name: Option<String>,
    pub start_time: Option<Time>,
    pub conditions: Vec<PodCondition>,
}

impl Pod {
    /// Whether it has ended and takes nothing of its node any more.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.status.phase.as_deref(),
            Some("Succeeded") | Some("Failed")
        )
    }
}

/// A node, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Node {
    /// Name, version, labels.
    #[serde(default, deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    /// Taints, and whether it is cordoned.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What it has.
    #[serde(default)]
    pub status: NodeStatus,
}

/// A node's `spec`, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
}

/// A node's `status`, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct NodeStatus {
    pub allocatable: BTreeMap<String, Quantity>,
    pub images: Vec<ContainerImage>,
}

/// Decodes metadata without annotations and managed fields, its heaviest parts.
fn lean_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
    }
    let lean = Lean::deserialize(from)?;
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        labels: lean.labels,
        owner_references: lean.owner_references,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// Makes a reduced type readable under the names of the full one.
macro_rules! stands_for {
    ($view:ty, $full:ty) => {
        impl Resource for $view {
            type DynamicType = ();
            type Scope = <$full as Resource>::Scope;

            fn kind(kind: &()) -> Cow<'_, str> {
                <$full as Resource>::kind(kind)
            }
            fn group(kind: &()) -> Cow<'_, str> {
                <$full as Resource>::group(kind)
            }
            fn version(kind: &()) -> Cow<'_, str> {
                <$full as Resource>::version(kind)
            }
            fn plural(kind: &()) -> Cow<'_, str> {
                <$full as Resource>::plural(kind)
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

stands_for!(Pod, k8s_openapi::api::core::v1::Pod);
stands_for!(Node, k8s_openapi::api::core::v1::Node);
