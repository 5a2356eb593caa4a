//! `BgpNode`: how one node speaks BGP.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How one node speaks BGP. Named after its node, and written by its network agent only.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "BgpNode",
    plural = "bgpnodes",
    status = "BgpNodeStatus"
)]
pub struct BgpNodeSpec {}

/// What the node's speaker does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodeStatus {
    /// The node's AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Its BGP Identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Prefixes that it originates.
    #[serde(default)]
    pub announced: u32,
    /// Routes that the kernel refuses; it is asked for them again and again.
    #[serde(default)]
    pub refused_routes: u32,
    /// `Programmed`: whether the kernel has all routes that it should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How far it has left the fabric; absent while it does not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<BgpDrain>,
    /// The node that leaves and gets the connections from this one that it began: mid-stream
    /// packets of TCP to addresses of services, of which this node knows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hands_over_to: Option<String>,
    /// Its sessions, in the order of their neighbours.
    #[serde(default)]
    pub sessions: Vec<BgpSession>,
    /// Why it does not speak as it should: a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// How far a node has left the fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpDrain {
    /// What its neighbours are told now, as the annotation `net.peapod.dev/drain` calls it:
    /// `handover`, `graceful`, `services` or `all`.
    pub step: String,
    /// TCP connections of clients outside of the cluster to addresses of services that still go
    /// through it. Looked at once a second.
    pub connections: u32,
}

/// A session of a node with a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpSession {
    /// The node; told where it does not follow from the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The `BgpPeer` that asks for it.
    #[serde(default)]
    pub peer: String,
    /// The neighbour's address, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<String>,
    /// The node's interface towards it, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The neighbour's AS, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_as: Option<u32>,
    /// Its BGP Identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_router_id: Option<String>,
    /// The name that it tells of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_hostname: Option<String>,
    /// `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    #[serde(default)]
    pub state: String,
    /// Since when the session is up or down, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// State of its BFD session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
    /// Paths received.
    #[serde(default)]
    pub received: u32,
    /// Those of them that no policy or rule refuses.
    #[serde(default)]
    pub accepted: u32,
    /// Prefixes announced to it.
    #[serde(default)]
    pub advertised: u32,
    /// Why the last session, or attempt, ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl BgpSession {
    /// Whether routes flow.
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }
}
