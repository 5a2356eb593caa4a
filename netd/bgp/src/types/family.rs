//! Address families: what kind of destination a route leads to (RFC 4760).

use std::fmt;

/// An address family (AFI) with its subsequent one (SAFI). Any pair can be held, since a peer may
/// offer families that this speaker does not have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Family {
    /// Address family identifier: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// Subsequent address family identifier: 1 is unicast.
    pub safi: u8,
}

impl Family {
    /// AFI of IPv4.
    pub const AFI_IPV4: u16 = 1;
    /// AFI of IPv6.
    pub const AFI_IPV6: u16 = 2;
    /// SAFI of unicast forwarding.
    pub const SAFI_UNICAST: u8 = 1;

    /// IPv4 unicast, the one family that RFC 4271 alone can carry.
    pub const IPV4_UNICAST: Family = Family {
        afi: Self::AFI_IPV4,
        safi: Self::SAFI_UNICAST,
    };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Family = Family {
        afi: Self::AFI_IPV6,
        safi: Self::SAFI_UNICAST,
    };

    /// The families whose routes this crate can read and write.
    pub const SUPPORTED: [Family; 2] = [Self::IPV4_UNICAST, Self::IPV6_UNICAST];

    /// Whether routes of this family can be read and written.
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// The unicast family of a prefix.
    pub fn of(prefix: &ipnet::IpNet) -> Family {
        match prefix {
            ipnet::IpNet::V4(_) => Self::IPV4_UNICAST,
            ipnet::IpNet::V6(_) => Self::IPV6_UNICAST,
        }
    }

    /// Bits in an address of this family, if it is IP.
    pub fn address_bits(self) -> Option<u8> {
        match self.afi {
            Self::AFI_IPV4 => Some(32),
            Self::AFI_IPV6 => Some(128),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4_UNICAST => f.write_str("ipv4-unicast"),
            Self::IPV6_UNICAST => f.write_str("ipv6-unicast"),
            Family { afi, safi } => write!(f, "afi {afi} safi {safi}"),
        }
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
