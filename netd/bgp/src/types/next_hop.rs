//! The next hop of a route.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Where packets for a route are sent, as the UPDATE said. An IPv4 route may have an IPv6 next hop
/// (RFC 8950).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address; link-local from peers that have no other.
    V6(Ipv6Addr),
    /// A global IPv6 address, and the link-local one of the same interface (RFC 2545 §3).
    V6WithLinkLocal {
        /// The global address; some speakers of unnumbered sessions put `::` or the link-local
        /// one here as well.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The address by which the route identifies its next hop: the global one where there is one.
    pub fn address(&self) -> IpAddr {
        match *self {
            NextHop::V4(address) => address.into(),
            NextHop::V6(address) => address.into(),
            NextHop::V6WithLinkLocal { global, link_local } if global.is_unspecified() => {
                link_local.into()
            }
            NextHop::V6WithLinkLocal { global, .. } => global.into(),
        }
    }

    /// The link-local address, if one was given: what a directly connected neighbour is reached by.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        match *self {
            NextHop::V4(_) => None,
            NextHop::V6(address) => address.is_unicast_link_local().then_some(address),
            NextHop::V6WithLinkLocal { link_local, .. } => Some(link_local),
        }
    }

    /// Whether packets could be sent there at all: not unspecified, multicast, loopback or reserved.
    pub fn is_usable(&self) -> bool {
        match self.address() {
            IpAddr::V4(v4) => {
                let first = v4.octets()[0];
                first != 0 && first != 127 && first < 224
            }
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast()),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => NextHop::V4(v4),
            IpAddr::V6(v6) => NextHop::V6(v6),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::V4(address) => address.fmt(f),
            NextHop::V6(address) => address.fmt(f),
            NextHop::V6WithLinkLocal { global, link_local } => write!(f, "{global} ({link_local})"),
        }
    }
}
