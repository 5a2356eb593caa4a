//! The messages.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::codes::codes;
use super::{AS_TRANS, Capability, Family, NlriList, Notification, PathAttributes, Problem, Role};

/// The one version of the protocol.
pub const VERSION: u8 = 4;

/// A BGP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Opens a session.
    Open(Open),
    /// Announces and withdraws routes.
    Update(Update),
    /// Closes the session, with the reason.
    Notification(Notification),
    /// Keeps the hold timer from expiring.
    Keepalive,
    /// Asks for all routes again, or marks begin and end of them.
    RouteRefresh(RouteRefresh),
}

codes! {
    /// The type of a message.
    pub enum MessageType {
        /// RFC 4271 §4.2.
        Open = 1 "OPEN",
        /// RFC 4271 §4.3.
        Update = 2 "UPDATE",
        /// RFC 4271 §4.5.
        Notification = 3 "NOTIFICATION",
        /// RFC 4271 §4.4.
        Keepalive = 4 "KEEPALIVE",
        /// RFC 2918.
        RouteRefresh = 5 "ROUTE-REFRESH",
    }
}

/// OPEN: who the sender is and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The AS number in the two octets of the message; [`AS_TRANS`] if it does not fit. The true
    /// one is [`Open::asn`].
    pub my_as: u16,
    /// Seconds without a message after which the session is given up; 0 for never.
    pub hold_time: u16,
    /// The sender's router id.
    pub router_id: Ipv4Addr,
    /// What it can do, in the order of the message.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN of an AS, with the four-octet AS capability first and `capabilities` after it.
    pub fn new(
        asn: u32,
        hold_time: u16,
        router_id: Ipv4Addr,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> Open {
        let four_octet = Capability::FourOctetAs(asn);
        Open {
            my_as: u16::try_from(asn).unwrap_or(AS_TRANS as u16),
            hold_time,
            router_id,
            capabilities: std::iter::once(four_octet).chain(capabilities).collect(),
        }
    }

    /// The sender's AS number.
    pub fn asn(&self) -> u32 {
        self.four_octet_as().unwrap_or(u32::from(self.my_as))
    }

    /// The AS number in the four-octet AS capability, if the sender has that.
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
    }

    /// The families that it offers: IPv4 unicast if it names none (RFC 4760 §8).
    pub fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for capability in &self.capabilities {
            if let Capability::MultiProtocol(family) = capability
                && !families.contains(family)
            {
                families.push(*family);
            }
        }
        if families.is_empty() {
            families.push(Family::IPV4_UNICAST);
        }
        families
    }

    /// The sender's role, if it names one.
    pub fn role(&self) -> Option<Role> {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::Role(role) => Some(*role),
                _ => None,
            })
    }

    /// Whether a capability without a value is among its own.
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }
}

/// UPDATE: routes that no longer hold, and routes that hold now.
///
/// What is withdrawn here comes before what is announced. A decoded one is ready to be applied:
/// routes whose attributes were malformed already stand under `withdrawn` (RFC 7606).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes withdrawn; at most one list per family and origin in the message.
    pub withdrawn: Vec<NlriList>,
    /// Prefixes announced, with their attributes: at most one list of each family.
    pub announced: Vec<Announcement>,
    /// All routes of this family have been sent (RFC 4724 §2); then there is nothing else here.
    pub end_of_rib: Option<Family>,
    /// What was wrong in it and what was done about that; empty in one to be sent.
    pub problems: Vec<Problem>,
}

/// Prefixes with the attributes that they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The attributes, next hop included.
    pub attributes: Arc<PathAttributes>,
    /// The prefixes, of one family.
    pub nlri: NlriList,
}

/// ROUTE-REFRESH: asks for all routes of a family (RFC 2918), or marks the sending of them (RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family.
    pub family: Family,
    /// What is said; those of an unknown subtype are to be ignored.
    pub subtype: RefreshSubtype,
}

codes! {
    /// What a ROUTE-REFRESH says.
    pub enum RefreshSubtype {
        /// Send all routes again.
        Request = 0 "request",
        /// All routes follow (BoRR).
        Begin = 1 "begin",
        /// All routes have been sent (EoRR).
        End = 2 "end",
    }
}
