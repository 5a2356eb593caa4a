//! `Placement`: one place where a pod has been.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One place where a pod has been: a node, behind its leaves, with addresses, from a time to a
/// time.
///
/// Placements are recorded by the API server and read-only. They are kept in a log of their own,
/// beside the objects, so that they outlive pods and restarts: for seven days, a million at most.
/// Field selectors: `spec.podName`, `spec.workload`, `spec.node`, `spec.ip` (any address) and
/// `spec.leaf` (any leaf), each without `spec.` too; `since` and `until` in the query (RFC 3339)
/// keep to those that were there within that time.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "Placement",
    plural = "placements",
    namespaced
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSpec {
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// The topmost owner, as `Deployment/web`; `Pod/NAME` for a pod that nobody owns.
    pub workload: String,
    /// The node.
    pub node: String,
    /// The node's rack, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The leaf switches that the node had sessions with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<PlacementLeaf>,
    /// The pod's addresses, the preferred family first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// When it came, RFC 3339.
    pub from: String,
    /// When it left, RFC 3339; none while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why it came.
    pub reason: Arrival,
    /// What made the pod that it replaces leave, for `Rescheduled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Departure>,
    /// The pod that it replaces, as `NAME on NODE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Why it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<Departure>,
    /// A sentence on why it left, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A leaf switch, as a node's session with it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementLeaf {
    /// Its hostname where it tells one, else its router id, else its address.
    pub name: String,
    /// The node's port towards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Why a pod came to a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Arrival {
    /// It is new, and the scheduler chose the node.
    #[default]
    Scheduled,
    /// It takes the place of another pod of its workload.
    Rescheduled,
    /// Its node has restarted, and it with it.
    NodeRestarted,
    /// Its addresses changed.
    AddressChanged,
    /// A leaf of its node was lost, or came back.
    LeafChanged,
    /// It was there when recording began.
    Observed,
}

/// Why a pod left a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Departure {
    /// It was deleted: by a user, or by its controller.
    Deleted,
    /// Its workload's template changed, and a new pod took over.
    RolledOut,
    /// It was evicted, by the eviction API or a taint.
    Evicted,
    /// It was evicted from a node that is being drained.
    Drained,
    /// A pod of a higher priority needed the node.
    Preempted,
    /// Its node was short of something.
    NodePressure,
    /// Its node does not answer, or is gone.
    NodeLost,
    /// Its work is done.
    Completed,
    /// It failed, and does not run again.
    Failed,
    /// Its node has restarted.
    NodeRestarted,
    /// Its addresses changed.
    AddressChanged,
    /// A leaf of its node was lost, or came back.
    LeafChanged,
    /// It left while nothing was recorded.
    Unobserved,
}

// === impl Arrival ===

impl Arrival {
    /// The word, as it stands in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Rescheduled => "Rescheduled",
            Self::NodeRestarted => "NodeRestarted",
            Self::AddressChanged => "AddressChanged",
            Self::LeafChanged => "LeafChanged",
            Self::Observed => "Observed",
        }
    }
}

// === impl Departure ===

impl Departure {
    /// The word, as it stands in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deleted => "Deleted",
            Self::RolledOut => "RolledOut",
            Self::Evicted => "Evicted",
            Self::Drained => "Drained",
            Self::Preempted => "Preempted",
            Self::NodePressure => "NodePressure",
            Self::NodeLost => "NodeLost",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::NodeRestarted => "NodeRestarted",
            Self::AddressChanged => "AddressChanged",
            Self::LeafChanged => "LeafChanged",
            Self::Unobserved => "Unobserved",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_api() {
        for arrival in [Arrival::Scheduled, Arrival::LeafChanged, Arrival::Observed] {
            assert_eq!(serde_json::json!(arrival), arrival.word());
        }
        for departure in [Departure::RolledOut, Departure::NodeLost] {
            assert_eq!(serde_json::json!(departure), departure.word());
        }
    }
}
