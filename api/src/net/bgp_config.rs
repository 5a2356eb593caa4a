//! `BgpConfig`: what all nodes of the cluster have in common when they speak BGP.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BgpTables;

/// The name of the one object.
pub const DEFAULT: &str = "default";

/// The AS of a cluster whose nodes share one, where nothing else is said.
pub const DEFAULT_ASN: u32 = 64_512;

/// How the cluster speaks BGP. There is one, named `default`; without it the nodes share AS 64512
/// and announce their blocks of pod addresses and the addresses of load balancers.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "BgpConfig",
    plural = "bgpconfigs",
    status = "BgpConfigStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfigSpec {
    /// Which AS a node is in.
    #[serde(default)]
    pub as_plan: AsPlan,
    /// What nodes announce.
    #[serde(default)]
    pub announce: Announce,
    /// Most next hops of a route, 1 to 64; 8 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipath: Option<u8>,
    /// Where a node's BGP Identifier comes from; its IPv4 InternalIP without it. A node's annotation
    /// `net.peapod.dev/router-id` goes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<BgpRouterId>,
    /// How nodes restart without loss, and help neighbours that do. A change is told to a neighbour
    /// with the next session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<BgpGracefulRestart>,
}

/// What the plan leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpConfigStatus {
    /// Routes of the cluster in the tables of nodes, leaves and spines.
    #[serde(default)]
    pub tables: BgpTables,
}

/// Where a node's BGP Identifier comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BgpRouterId {
    /// Its first IPv4 InternalIP.
    #[serde(rename = "NodeIP")]
    NodeIp,
    /// A number made of its name, for nodes without IPv4. Of 1,000 nodes two share one with a chance
    /// of one in 8,600: then one of them needs the annotation.
    NodeName,
}

/// Graceful restart (RFC 4724, 8538, 9494).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpGracefulRestart {
    /// Whether it is spoken at all; it is without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long neighbours shall wait for a node that is away, in seconds, at most 4095; 120 without
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_seconds: Option<u16>,
    /// How long a node keeps the routes of a neighbour that is back until it has sent them again, in
    /// seconds, a day at most; 300 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_path_seconds: Option<u32>,
    /// How long routes of a neighbour that does not come back are kept for want of better ones
    /// (RFC 9494), in seconds, less than 2^24; 0, not at all, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_lived_seconds: Option<u32>,
}

/// Which AS a node is in: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsPlan {
    /// All nodes in one AS. Leaves pass on routes between them only if nodes take paths with
    /// their own AS, which they then do, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedAs>,
    /// An AS for each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<PerNodeAs>,
    /// An AS for each rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_rack: Option<PerRackAs>,
}

/// One AS for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedAs {
    /// The AS.
    pub asn: u32,
}

/// An AS for each node, counted by its block of pod addresses: no two nodes hold one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PerNodeAs {
    /// The AS of the node with the first block of the range of pod addresses.
    pub from: u32,
}

/// An AS for each rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PerRackAs {
    /// The AS of each rack, by the value of the nodes' label `net.peapod.dev/rack`.
    pub racks: BTreeMap<String, u32>,
}

/// What nodes announce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announce {
    /// Their blocks of pod addresses, each as one route.
    #[serde(default = "yes", rename = "podCIDRs")]
    pub pod_cidrs: bool,
    /// Load balancer and external addresses of services that have an endpoint to answer.
    #[serde(default = "yes")]
    pub services: bool,
    /// The nodes' own addresses, where these are not on a link that others share.
    #[serde(default, rename = "nodeIPs")]
    pub node_ips: bool,
    /// Cluster addresses of services too, a route each.
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: bool,
    /// Communities on all of it: `65000:100`, large ones as `4200000000:1:2`, `no-export`. What only
    /// some prefixes or neighbours are to see stands in `export` of a `BgpPeer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            pod_cidrs: true,
            services: true,
            node_ips: false,
            cluster_ips: false,
            communities: Vec::new(),
        }
    }
}
