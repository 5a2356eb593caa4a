//! `IpBlock`: a block of pod addresses held by one node.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The finalizer of a block that is not its node's first: the node takes it away when the block is
/// being deleted and no address of it is in use or may still be meant by someone.
pub const ADDRESSES_IN_USE: &str = "net.peapod.dev/addresses";

/// A block of pod addresses held by one node.
///
/// The object is named after its CIDR (see [`block_name`]), so that creating it is the atomic
/// claim. It is the one source of truth for who may hand out an address; `spec.podCIDRs` of a
/// node is a copy of its first block of each family, which is released only when it is empty and its
/// node is gone. A further block has the finalizer [`ADDRESSES_IN_USE`], and is deleted when the node
/// does not need it any more: the node gives no more addresses of a block that is being deleted.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "IpBlock",
    plural = "ipblocks"
)]
#[serde(rename_all = "camelCase")]
pub struct IpBlockSpec {
    /// The block, as `10.244.1.0/24` or `fd00:10:244:1::/64`.
    pub cidr: String,
    /// Name of the node that holds it.
    pub node: String,
    /// Name of the pool it was cut from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// The name of the block object for a CIDR: every character that a name cannot hold becomes a
/// dash, with IPv6 written out, so that one CIDR has one name.
///
/// ```
/// let v4 = "10.244.1.0/24".parse().unwrap();
/// assert_eq!(peapod_api::net::block_name(v4), "10-244-1-0-24");
/// let v6 = "fd00:10:244:1::/64".parse().unwrap();
/// assert_eq!(peapod_api::net::block_name(v6), "fd00-0010-0244-0001-0000-0000-0000-0000-64");
/// ```
pub fn block_name(cidr: ipnet::IpNet) -> String {
    match cidr {
        ipnet::IpNet::V4(net) => {
            let dashed = net.network().to_string().replace('.', "-");
            format!("{dashed}-{}", net.prefix_len())
        }
        ipnet::IpNet::V6(net) => {
            let groups: Vec<String> = net
                .network()
                .segments()
                .iter()
                .map(|segment| format!("{segment:04x}"))
                .collect();
            format!("{}-{}", groups.join("-"), net.prefix_len())
        }
    }
}
