//! The kinds of Peapod's own group, `net.peapod.dev/v1`: a file each.

mod bgp_config;
mod bgp_node;
mod bgp_peer;
mod ip_block;
mod ip_pool;
mod placement;

pub use bgp_config::{
    Announce, AsPlan, BgpConfig, BgpConfigSpec, DEFAULT as DEFAULT_BGP_CONFIG, DEFAULT_ASN,
    PerNodeAs, PerRackAs, SharedAs,
};
pub use bgp_node::{BgpNode, BgpNodeSpec, BgpNodeStatus, BgpSession};
pub use bgp_peer::{
    BgpPeer, BgpPeerAs, BgpPeerAuth, BgpPeerBfd, BgpPeerSecret, BgpPeerSpec, BgpPeerStatus,
    BgpPeerTimers, SECRET_NAMESPACE as BGP_SECRET_NAMESPACE,
};
pub use ip_block::{IpBlock, IpBlockSpec, block_name};
pub use ip_pool::{Encapsulation, IpPool, IpPoolBlocks, IpPoolSpec, IpPoolStatus};
pub use placement::{Arrival, Departure, Placement, PlacementLeaf, PlacementSpec};

/// The group's name.
pub const GROUP: &str = "net.peapod.dev";
