//! `LoadBalancerPool`: addresses that Services of type LoadBalancer get.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The class of load balancers that these pools are for; Services without a class are theirs, too.
pub const LOAD_BALANCER_CLASS: &str = "net.peapod.dev/bgp";
/// Annotation of a Service: the addresses that it wants, at most one of each family, by comma.
pub const LOAD_BALANCER_IPS: &str = "net.peapod.dev/load-balancer-ips";
/// Annotation of a Service: the pool that its addresses must be of.
pub const LOAD_BALANCER_POOL: &str = "net.peapod.dev/load-balancer-pool";
/// Annotation of a Service: it may share an address with Services that have the same value here,
/// and other ports.
pub const ALLOW_SHARED_IP: &str = "net.peapod.dev/allow-shared-ip";

/// Addresses that Services of type LoadBalancer get, of any family. Each address given is claimed by
/// a [`super::LoadBalancerAddress`].
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "LoadBalancerPool",
    plural = "loadbalancerpools",
    status = "LoadBalancerPoolStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolSpec {
    /// The addresses: blocks as `192.0.2.0/24`, ranges as `192.0.2.10-192.0.2.20`, and single ones.
    /// Ranges of pools do not overlap.
    pub addresses: Vec<String>,
    /// Which Services, by their labels; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// The Services of which namespaces, by the namespaces' labels; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which nodes announce its addresses to their BGP neighbours, by the nodes' labels; all that
    /// can answer without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Whether Services get its addresses that name neither a pool nor an address; true without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
}

/// What is used of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolStatus {
    /// Its addresses.
    #[serde(default)]
    pub addresses: LoadBalancerPoolAddresses,
}

/// The addresses of a pool. Numbers beyond 2^63-1 are given as that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolAddresses {
    /// All.
    #[serde(default)]
    pub total: u64,
    /// Those that Services have.
    #[serde(default)]
    pub used: u64,
    /// The others.
    #[serde(default)]
    pub free: u64,
}

/// Addresses from a first to a last one, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a block (192.0.2.0/24), a range (192.0.2.10-192.0.2.20, the lower address first) or an address"
)]
pub struct NoAddressRange;

// === impl AddressRange ===

impl AddressRange {
    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether an address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.is_ipv4() == ip.is_ipv4() && (self.first..=self.last).contains(&ip)
    }

    /// Whether some address is of both.
    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many there are; at most `u128::MAX`.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }
}

impl FromStr for AddressRange {
    type Err = NoAddressRange;

    /// ```
    /// use peapod_api::net::AddressRange;
    /// let range: AddressRange = "192.0.2.10-192.0.2.20".parse().unwrap();
    /// assert_eq!(range.count(), 11);
    /// assert_eq!("192.0.2.0/28".parse::<AddressRange>().unwrap().count(), 16);
    /// assert_eq!("2001:db8::1".parse::<AddressRange>().unwrap().count(), 1);
    /// assert!("192.0.2.20-192.0.2.10".parse::<AddressRange>().is_err());
    /// assert!("192.0.2.1-2001:db8::1".parse::<AddressRange>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, NoAddressRange> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(net.into());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| NoAddressRange);
        let (first, last) = (address(first)?, address(last)?);
        let sound = first.is_ipv4() == last.is_ipv4() && first <= last;
        sound.then_some(Self { first, last }).ok_or(NoAddressRange)
    }
}
