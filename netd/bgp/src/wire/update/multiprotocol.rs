//! MP_REACH_NLRI and MP_UNREACH_NLRI: routes inside an attribute (RFC 4760, RFC 2545, RFC 8950).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::attributes::Attribute;
use super::{Decoder, reset};
use crate::types::{Action, Family, NextHop, NlriList, Notification, UpdateError};
use crate::wire::FamilySession;
use crate::wire::reader::{Reader, exact};

/// The routes of an MP_REACH_NLRI.
pub(super) struct Reachable {
    pub(super) next_hop: Option<NextHop>,
    pub(super) nlri: NlriList,
}

/// Where in such an attribute the reading failed.
const NEXT_HOP_LENGTH: &str = "the length of the next hop is wrong";
const PREFIX: &str = "a prefix cannot be read";

impl Decoder<'_> {
    /// Reads an MP_REACH_NLRI.
    pub(super) fn reachable(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        let mut value = Reader::new(attribute.value);
        let Some(family) = self.family(&mut value, attribute)? else {
            return Ok(());
        };
        let next_hop = value.u8().and_then(|len| value.take(usize::from(len)));
        let Some(next_hop) = next_hop.and_then(|octets| next_hop_of(octets, &family)) else {
            return self.unreadable(family.family, attribute, NEXT_HOP_LENGTH);
        };
        // One reserved octet, once the number of SNPAs.
        if value.u8().is_none() {
            return self.unreadable(family.family, attribute, NEXT_HOP_LENGTH);
        }
        let prefixes = self.message.slice_ref(value.rest());
        match NlriList::parse(family.family, family.add_path_receive, prefixes) {
            Ok(nlri) => {
                if !next_hop.is_usable() {
                    let what = "packets cannot be sent to that next hop";
                    self.problem(attribute.code, Action::TreatAsWithdraw, what);
                }
                self.reachable = Some(Reachable {
                    next_hop: Some(next_hop),
                    nlri,
                });
                Ok(())
            }
            Err(_) => self.unreadable(family.family, attribute, PREFIX),
        }
    }

    /// Reads an MP_UNREACH_NLRI.
    pub(super) fn unreachable(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        let mut value = Reader::new(attribute.value);
        let Some(family) = self.family(&mut value, attribute)? else {
            return Ok(());
        };
        let prefixes = self.message.slice_ref(value.rest());
        match NlriList::parse(family.family, family.add_path_receive, prefixes) {
            Ok(nlri) => {
                self.unreachable = Some(nlri);
                Ok(())
            }
            Err(_) => self.unreadable(family.family, attribute, PREFIX),
        }
    }

    /// The family that the attribute is about; `None` if it is not part of the session.
    fn family(
        &mut self,
        value: &mut Reader<'_>,
        attribute: &Attribute<'_>,
    ) -> Result<Option<FamilySession>, Notification> {
        let (Some(afi), Some(safi)) = (value.u16(), value.u8()) else {
            return Err(reset(UpdateError::OptionalAttribute, attribute.whole));
        };
        let family = self.session.family(Family { afi, safi }).copied();
        if family.is_none() {
            let what = "its family is not part of the session";
            self.problem(attribute.code, Action::AttributeDiscard, what);
        }
        Ok(family)
    }

    /// Routes that cannot be read: the family is given up, and if the session has no other, the
    /// session (RFC 7606 §5.3, RFC 4760 §7).
    fn unreadable(
        &mut self,
        family: Family,
        attribute: &Attribute<'_>,
        what: &'static str,
    ) -> Result<(), Notification> {
        if self.session.families.len() < 2 {
            return Err(reset(UpdateError::OptionalAttribute, attribute.whole));
        }
        self.problem(attribute.code, Action::DisableFamily(family), what);
        Ok(())
    }
}

/// The next hop in as many octets as the family's routes may have in this session.
fn next_hop_of(octets: &[u8], family: &FamilySession) -> Option<NextHop> {
    let ipv4_routes = family.family.afi == Family::AFI_IPV4;
    match octets.len() {
        4 if ipv4_routes => Some(NextHop::V4(Ipv4Addr::from(exact::<4>(octets)?))),
        16 if !ipv4_routes || family.extended_next_hop => {
            Some(NextHop::V6(Ipv6Addr::from(exact::<16>(octets)?)))
        }
        32 if !ipv4_routes || family.extended_next_hop => {
            let (global, link_local) = octets.split_at(16);
            let global = Ipv6Addr::from(exact::<16>(global)?);
            let link_local = Ipv6Addr::from(exact::<16>(link_local)?);
            // Some speakers fill the second place with nothing, or with the first again.
            if !link_local.is_unicast_link_local() || global == link_local {
                return Some(NextHop::V6(global));
            }
            Some(NextHop::V6WithLinkLocal { global, link_local })
        }
        _ => None,
    }
}
