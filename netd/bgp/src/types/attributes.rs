//! Path attributes: what an UPDATE says of the routes in it (RFC 4271 §5).

use std::net::Ipv4Addr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codes::codes;
use super::{AsPath, Community, ExtCommunity, LargeCommunity, NextHop};

/// Flag bits of a path attribute (RFC 4271 §4.3).
pub mod flags {
    /// Not every speaker must know it.
    pub const OPTIONAL: u8 = 0x80;
    /// To be passed on even by speakers that do not know it.
    pub const TRANSITIVE: u8 = 0x40;
    /// A speaker on the way did not know it.
    pub const PARTIAL: u8 = 0x20;
    /// Its length has two octets.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

codes! {
    /// The type of a path attribute.
    pub enum AttributeCode {
        /// How the route came to be.
        Origin = 1 "ORIGIN",
        /// The autonomous systems that it came through.
        AsPath = 2 "AS_PATH",
        /// The IPv4 next hop of IPv4 routes.
        NextHop = 3 "NEXT_HOP",
        /// Preference among entries into the neighbouring AS.
        MultiExitDisc = 4 "MULTI_EXIT_DISC",
        /// Preference inside the AS.
        LocalPref = 5 "LOCAL_PREF",
        /// Less specific than what it was made from.
        AtomicAggregate = 6 "ATOMIC_AGGREGATE",
        /// Who aggregated.
        Aggregator = 7 "AGGREGATOR",
        /// RFC 1997.
        Communities = 8 "COMMUNITIES",
        /// RFC 4456: the router that originated the route in this AS.
        OriginatorId = 9 "ORIGINATOR_ID",
        /// RFC 4456: the clusters that reflected it.
        ClusterList = 10 "CLUSTER_LIST",
        /// RFC 4760.
        MpReachNlri = 14 "MP_REACH_NLRI",
        /// RFC 4760.
        MpUnreachNlri = 15 "MP_UNREACH_NLRI",
        /// RFC 4360.
        ExtendedCommunities = 16 "EXTENDED_COMMUNITIES",
        /// RFC 6793: the path with four-octet numbers, past speakers that have only two.
        As4Path = 17 "AS4_PATH",
        /// RFC 6793.
        As4Aggregator = 18 "AS4_AGGREGATOR",
        /// RFC 8092.
        LargeCommunities = 32 "LARGE_COMMUNITY",
        /// RFC 9234: from here on the route goes only to customers.
        OnlyToCustomer = 35 "ONLY_TO_CUSTOMER",
    }
}

/// How a route came to be; a lower one is preferred.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// From the AS's own routing.
    #[default]
    Igp,
    /// From the historical EGP.
    Egp,
    /// From elsewhere, such as redistribution.
    Incomplete,
}

/// Who made an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregator {
    /// Its AS.
    pub asn: u32,
    /// Its router id.
    pub router_id: Ipv4Addr,
}

/// An optional transitive attribute that this crate does not know, to be passed on as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RawAttribute {
    /// Its flags ([`flags`]), with [`flags::PARTIAL`] set, without [`flags::EXTENDED_LENGTH`].
    pub flags: u8,
    /// Its type.
    pub code: u8,
    /// Its value.
    #[serde(with = "super::hex")]
    pub value: Bytes,
}

/// Everything that an UPDATE says of its routes besides their prefixes. Many routes share one
/// set: hold it in an `Arc`, and intern equal ones, which is why it compares and hashes.
///
/// Lists keep the order of the sender, except that communities are sorted and have no duplicates
/// when the decoder made them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathAttributes {
    /// How the route came to be.
    pub origin: Origin,
    /// The autonomous systems that it came through. AS4_PATH is already merged into it.
    pub as_path: AsPath,
    /// Where its packets go; `None` for a route of one's own, before it is sent.
    pub next_hop: Option<NextHop>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; never sent to an external peer, nor taken from one.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR. AS4_AGGREGATOR is already merged into it.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// EXTENDED_COMMUNITIES.
    pub ext_communities: Vec<ExtCommunity>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, nearest first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// ONLY_TO_CUSTOMER: the AS that set it.
    pub only_to_customer: Option<u32>,
    /// Unknown transitive attributes, by ascending type.
    pub unknown: Vec<RawAttribute>,
}
