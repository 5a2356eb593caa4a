//! The service maps and address translation of this node, in nftables.
//!
//! ```text
//! table ip peapod (and ip6 peapod, alike)
//!   map services      address . protocol . port          : goto a chain | refuse | drop | accept
//!   map endpoints     address . protocol . port . place  : endpoint's address . port
//!   map nodeports     protocol . port                    : the same for ports of every
//!   map nodeport-...  protocol . port . place            :   address of this node
//!   map hostports     protocol . port                    : a pod's address . port
//!   map hostip-ports  address . protocol . port          : a pod's address . port
//!   set affinity      client . address . protocol . port . place, expiring
//!   set hairpin       a pod's address, twice             those attached here
//!   set blocks        this node's pod addresses
//!   set cluster       pods' and nodes' addresses everywhere
//!   set nat-...       those of them that are masqueraded  (see [`source`])
//!   set ...-links     links to BGP neighbours
//!   chain svc-in-3    one chain for all services with three endpoints
//! ```
//!
//! A packet's destination is looked up once, however many services there are; the chain that
//! it leads to picks a place at random and looks the endpoint up. Sources are kept: only what
//! leaves the cluster for where pods are not known, what a pod sends to itself through a service,
//! and what comes from outside for an endpoint elsewhere is masqueraded.
//!
//! [`codec`] and [`chains`] are pure: what should be in the maps, as bytes. [`Nat`] talks to
//! the kernel. A restart reads the maps back and changes what differs, if anything.

mod base;
mod chains;
mod codec;
pub mod handover;
mod intervals;
mod matches;
mod mirror;
mod pod_elements;
mod programmer;
mod source;
mod stale_udp;

pub use pod_elements::PodPorts;
pub use programmer::{FabricLinks, Nat, NatConfig, Ranges, read_services, remove};

use peapod_nft::{DataType, Family, Reg, Table};

/// Name of the tables.
pub const TABLE: &str = "peapod";

/// One of the two address families, with what differs between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ip {
    pub(crate) v4: bool,
}

impl Ip {
    pub(crate) const V4: Ip = Ip { v4: true };
    pub(crate) const V6: Ip = Ip { v4: false };

    pub(crate) fn family(self) -> Family {
        if self.v4 { Family::Ip } else { Family::Ip6 }
    }

    pub(crate) fn table(self) -> Table {
        Table::new(self.family(), TABLE)
    }

    pub(crate) fn address_type(self) -> DataType {
        if self.v4 {
            DataType::Ipv4Addr
        } else {
            DataType::Ipv6Addr
        }
    }

    /// Bytes of an address.
    pub(crate) fn address_len(self) -> u32 {
        if self.v4 { 4 } else { 16 }
    }

    /// The register behind an address that begins at `reg`.
    pub(crate) fn behind(self, reg: Reg) -> Reg {
        reg.plus(self.address_len() / 4)
    }

    /// Offset of the source address in the network header.
    pub(crate) fn source_offset(self) -> u32 {
        if self.v4 { 12 } else { 8 }
    }

    /// Offset of the destination address in the network header.
    pub(crate) fn destination_offset(self) -> u32 {
        if self.v4 { 16 } else { 24 }
    }
}
