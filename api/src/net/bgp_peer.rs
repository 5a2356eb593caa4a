//! `BgpPeer`: neighbours that nodes speak BGP with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use super::{BgpPolicy, BgpSession};

/// Where the Secrets are that hold the passwords of sessions.
pub const SECRET_NAMESPACE: &str = "kube-system";

/// A neighbour that each of the selected nodes speaks BGP with: at an address (numbered), or behind
/// an interface, where its link-local address is learned from its router advertisements
/// (unnumbered, RFC 8950).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "BgpPeer",
    plural = "bgppeers",
    status = "BgpPeerStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// Which nodes; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The neighbour's address; either this or `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The interface behind which it is; either this or `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its AS: a number, `external` (any but the node's) or `internal` (the node's).
    #[schemars(schema_with = "int_or_string")]
    pub remote_as: BgpPeerAs,
    /// Its TCP port, 179 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Wait for it to connect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passive: bool,
    /// BFD watches it (RFC 5880).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BgpPeerBfd>,
    /// How the session is protected; without it anybody at the neighbour's address is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<BgpPeerAuth>,
    /// Timers of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<BgpPeerTimers>,
    /// `ipv4-unicast`, `ipv6-unicast`; both without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// Accept packets of at most this many hops only (GTSM, RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// Hops to an external neighbour that is not on a shared link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<u8>,
    /// Most prefixes to take from it; the session ends at one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
    /// Which routes are taken from it, and how they are changed; all as they are without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<BgpPolicy>,
    /// Which of the node's own routes it is told, and with what; all as they are without it. Routes of
    /// others it is never told: a node is nobody's way to anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<BgpPolicy>,
    /// How often the node's own AS may stand in a path from it. Without it 1 where nodes share ASes
    /// (other nodes of the AS are behind it), else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowas_in: Option<u8>,
    /// An AS that the node pretends to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<BgpPeerLocalAs>,
    /// The node's role towards it (RFC 9234): `customer`, `peer`, `provider`, `rs-client` or
    /// `rs-server`. A leaf that speaks of roles must be its counterpart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Refuse it when it does not tell its role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_role: bool,
    /// Several paths of one prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<BgpPeerAddPath>,
}

/// A neighbour's AS. Of four octets, which the API's own type for this cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BgpPeerAs {
    /// This one.
    Number(u32),
    /// `external`, `internal`, or a number as text.
    Text(String),
}

impl Default for BgpPeerAs {
    fn default() -> Self {
        Self::Text("external".to_owned())
    }
}

fn int_or_string(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// An AS that a node pretends to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerLocalAs {
    /// The AS.
    pub asn: u32,
    /// Do not put it into the paths that come in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_prepend: bool,
    /// Do not show the real AS to the neighbour.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace_as: bool,
}

/// Several paths of one prefix. A node has one of each of its own, so it only takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerAddPath {
    /// Take them.
    #[serde(default)]
    pub receive: bool,
}

/// How a session is protected: every segment is signed with a password (TCP MD5, RFC 2385).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerAuth {
    /// Where the password is. While it is not there, there is no session.
    pub secret_ref: BgpPeerSecret,
}

/// A password in a Secret of the namespace [`SECRET_NAMESPACE`], which the selected nodes may read.
/// Nodes can label themselves: where only some may know it, select them by a label whose name
/// begins with `node-restriction.kubernetes.io/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSecret {
    /// Name of the Secret.
    pub name: String,
    /// The key in its data that holds the password, 1 to 80 characters; `password` without it.
    #[serde(default = "BgpPeerSecret::default_key")]
    pub key: String,
}

impl BgpPeerSecret {
    fn default_key() -> String {
        "password".to_owned()
    }
}

/// How BFD watches a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerBfd {
    /// Time between packets, in milliseconds; 300 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// So many missing packets mean that the neighbour is gone; 3 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<u8>,
}

/// Timers of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerTimers {
    /// Hold time that is proposed, in seconds: 0 (no keepalives) or at least 3; 90 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u16>,
    /// Time between keepalives, in seconds; a third of the hold time without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_seconds: Option<u16>,
    /// Time between attempts to connect, in seconds; 10 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_seconds: Option<u16>,
}

/// The sessions of the selected nodes with the neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerStatus {
    /// Sessions that there should be.
    #[serde(default)]
    pub desired: u32,
    /// Sessions that are established.
    #[serde(default)]
    pub established: u32,
    /// `Established`, `Degraded` (some are), `Down` (none is) or `Unused` (no node is selected).
    #[serde(default)]
    pub state: String,
    /// Some of them, those that are not established first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<BgpSession>,
    /// Why one that is not established is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
