//! `IpPool`: a range of pod addresses that nodes get blocks of.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A range of pod addresses of one family, cut into blocks of one size. Each of the selected nodes
/// gets a block of each family (see [`super::IpBlock`]), and a further one when its blocks run out
/// of addresses.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "IpPool",
    plural = "ippools",
    status = "IpPoolStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The range, as `10.244.0.0/16` or `fd00:10:244::/56`. Immutable; ranges of pools do not overlap.
    pub cidr: String,
    /// Prefix length of a block: 24 (IPv4) or 64 (IPv6) without it. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Which nodes get blocks of it; all without it. Nodes keep the blocks that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// How packets to the pool's addresses get from node to node. Without it each node decides:
    /// `Routed` where a `BgpPeer` selects it, else `VXLANCrossSubnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Encapsulation>,
    /// No further blocks are given from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Whether pods with an address of it reach what is outside of the cluster under their node's
    /// address (`true`) or under their own (`false`). Without it they keep their own towards what
    /// lies behind a BGP neighbour that the node announces its blocks to, and have the node's
    /// elsewhere. The ranges of all pools, of disabled ones too, are not outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_outgoing: Option<bool>,
    /// MTU of pods with an address of it, in bytes; worked out from the node's links without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// How packets to pods get from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encapsulation {
    /// The fabric carries them: it learns the blocks by BGP, and nodes send to it as they send
    /// everything. Nothing between nodes is installed.
    Routed,
    /// Host routes by way of the other node's address, which is on a link that both share. Nodes
    /// behind a router are not reached.
    Direct,
    /// VXLAN (RFC 7348) between all nodes.
    #[serde(rename = "VXLAN")]
    Vxlan,
    /// `Direct` to nodes on a shared link, VXLAN to the others.
    #[serde(rename = "VXLANCrossSubnet")]
    VxlanCrossSubnet,
}

/// What is used of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolStatus {
    /// Its blocks.
    #[serde(default)]
    pub blocks: IpPoolBlocks,
    /// Addresses of it that pods have.
    #[serde(default)]
    pub addresses_in_use: u64,
}

/// The blocks of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolBlocks {
    /// All.
    #[serde(default)]
    pub total: u64,
    /// Those that nodes hold.
    #[serde(default)]
    pub used: u64,
    /// The others.
    #[serde(default)]
    pub free: u64,
}

impl IpPoolSpec {
    /// Prefix length of a block of `cidr` when the pool names none.
    ///
    /// ```
    /// use peapod_api::net::IpPoolSpec;
    /// assert_eq!(IpPoolSpec::default_block_size("10.244.0.0/16".parse().unwrap()), 24);
    /// ```
    pub fn default_block_size(cidr: ipnet::IpNet) -> u8 {
        match cidr {
            ipnet::IpNet::V4(_) => 24,
            ipnet::IpNet::V6(_) => 64,
        }
    }
}
