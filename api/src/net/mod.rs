//! The kinds of Peapod's own group, `net.peapod.dev/v1`: a file each.

mod bgp_config;
mod bgp_node;
mod bgp_peer;
mod bgp_policy;
mod bgp_tables;
mod ip_block;
mod ip_pool;
mod load_balancer_address;
mod load_balancer_pool;
mod placement;

pub use bgp_config::{
    Announce, AsPlan, BgpConfig, BgpConfigSpec, BgpConfigStatus, BgpGracefulRestart, BgpRouterId,
    DEFAULT as DEFAULT_BGP_CONFIG, DEFAULT_ASN, PerNodeAs, PerRackAs, SharedAs,
};
pub use bgp_node::{BgpDrain, BgpNode, BgpNodeSpec, BgpNodeStatus, BgpSession};
pub use bgp_peer::{
    BgpPeer, BgpPeerAddPath, BgpPeerAs, BgpPeerAuth, BgpPeerBfd, BgpPeerLocalAs, BgpPeerSecret,
    BgpPeerSpec, BgpPeerStatus, BgpPeerTimers, SECRET_NAMESPACE as BGP_SECRET_NAMESPACE,
};
pub use bgp_policy::{
    BgpAction, BgpMatch, BgpPolicy, BgpPrefixRule, BgpSet, BgpStatement, POLICY_WORDS,
    STATEMENTS_MAX as BGP_STATEMENTS_MAX, is_as_path_pattern, is_community, is_community_pattern,
};
pub use bgp_tables::{BgpTable, BgpTables, NodeRoutes, TableFacts};
pub use ip_block::{ADDRESSES_IN_USE, IpBlock, IpBlockSpec, block_name};
pub use ip_pool::{Encapsulation, IpPool, IpPoolBlocks, IpPoolSpec, IpPoolStatus};
pub use load_balancer_address::{
    LoadBalancerAddress, LoadBalancerAddressService, LoadBalancerAddressSpec, address_name,
};
pub use load_balancer_pool::{
    ALLOW_SHARED_IP, AddressRange, LOAD_BALANCER_CLASS, LOAD_BALANCER_IPS, LOAD_BALANCER_POOL,
    LoadBalancerPool, LoadBalancerPoolAddresses, LoadBalancerPoolSpec, LoadBalancerPoolStatus,
    NoAddressRange,
};
pub use placement::{Arrival, Departure, Placement, PlacementLeaf, PlacementSpec};

/// The group's name.
pub const GROUP: &str = "net.peapod.dev";
