//! What the two OPENs of a session agreed on, as far as it changes how messages are read and
//! written.

use crate::types::{AddPath, Capability, ExtendedNextHop, Family, Open};

/// The agreements of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The peer is in another AS (eBGP).
    pub external: bool,
    /// The peer's AS.
    pub peer_as: u32,
    /// Routes from an external peer must have the peer's AS first in their path. Off for peers
    /// that are route servers.
    pub enforce_first_as: bool,
    /// AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Messages may have 65,535 octets instead of 4,096 (RFC 8654).
    pub extended_message: bool,
    /// ROUTE-REFRESH may be sent (RFC 2918).
    pub route_refresh: bool,
    /// Begin and end of a refresh are marked (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// The families that both ends have.
    pub families: Vec<FamilySession>,
}

/// What was agreed on for a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilySession {
    /// The family.
    pub family: Family,
    /// Prefixes received have path identifiers (RFC 7911).
    pub add_path_receive: bool,
    /// Prefixes sent have path identifiers.
    pub add_path_send: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
}

impl Session {
    /// What is in force before the OPENs: nothing that needs agreement.
    pub fn before_open() -> Session {
        Session {
            external: true,
            peer_as: 0,
            enforce_first_as: false,
            four_octet_as: false,
            extended_message: false,
            route_refresh: false,
            enhanced_route_refresh: false,
            families: Vec::new(),
        }
    }

    /// What two OPENs agree on.
    pub fn negotiate(ours: &Open, theirs: &Open) -> Session {
        let both = |capability| ours.has(&capability) && theirs.has(&capability);
        let external = ours.asn() != theirs.asn();
        let offered = theirs.families();
        Session {
            external,
            peer_as: theirs.asn(),
            enforce_first_as: external,
            four_octet_as: ours.four_octet_as().is_some() && theirs.four_octet_as().is_some(),
            extended_message: both(Capability::ExtendedMessage),
            route_refresh: both(Capability::RouteRefresh),
            enhanced_route_refresh: both(Capability::EnhancedRouteRefresh),
            families: ours
                .families()
                .into_iter()
                .filter(|family| family.is_supported() && offered.contains(family))
                .map(|family| FamilySession::negotiate(family, ours, theirs))
                .collect(),
        }
    }

    /// What was agreed on for a family; `None` if that is not part of the session.
    pub fn family(&self, family: Family) -> Option<&FamilySession> {
        self.families.iter().find(|one| one.family == family)
    }

    /// The longest message that may be sent, in octets. OPEN and KEEPALIVE never get longer than
    /// 4,096 (RFC 8654 §3).
    pub fn max_message_len(&self) -> usize {
        if self.extended_message { 65_535 } else { 4_096 }
    }
}

impl FamilySession {
    /// A family with nothing but its plain routes.
    pub fn plain(family: Family) -> FamilySession {
        FamilySession {
            family,
            add_path_receive: false,
            add_path_send: false,
            extended_next_hop: false,
        }
    }

    fn negotiate(family: Family, ours: &Open, theirs: &Open) -> FamilySession {
        let (our_paths, their_paths) = (add_path(ours, family), add_path(theirs, family));
        FamilySession {
            family,
            add_path_receive: our_paths.receive && their_paths.send,
            add_path_send: our_paths.send && their_paths.receive,
            extended_next_hop: family.afi == Family::AFI_IPV4
                && has_extended_next_hop(ours, family)
                && has_extended_next_hop(theirs, family),
        }
    }
}

/// What an OPEN says about several paths of a family. The last mention counts (RFC 7911 §4).
fn add_path(open: &Open, family: Family) -> AddPath {
    let mut mentions = open
        .capabilities
        .iter()
        .flat_map(|capability| match capability {
            Capability::AddPath(families) => families.as_slice(),
            _ => &[],
        });
    let none = AddPath {
        family,
        send: false,
        receive: false,
    };
    mentions
        .rfind(|one| one.family == family)
        .copied()
        .unwrap_or(none)
}

fn has_extended_next_hop(open: &Open, family: Family) -> bool {
    let wanted = ExtendedNextHop {
        family,
        next_hop_afi: Family::AFI_IPV6,
    };
    open.capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(pairs) if pairs.contains(&wanted))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn open(asn: u32, capabilities: Vec<Capability>) -> Open {
        Open::new(asn, 90, Ipv4Addr::new(10, 0, 0, 1), capabilities)
    }

    #[test]
    fn without_multiprotocol_there_is_ipv4_unicast() {
        let session = Session::negotiate(&open(1, vec![]), &open(2, vec![]));
        assert!(session.external && session.four_octet_as && !session.route_refresh);
        assert_eq!(
            session.families,
            [FamilySession::plain(Family::IPV4_UNICAST)]
        );
        assert!(!Session::negotiate(&open(1, vec![]), &open(1, vec![])).external);
    }

    #[test]
    fn only_what_both_have_counts() {
        let v4 = Capability::MultiProtocol(Family::IPV4_UNICAST);
        let v6 = Capability::MultiProtocol(Family::IPV6_UNICAST);
        let vpn = Capability::MultiProtocol(Family { afi: 1, safi: 128 });
        let ours = open(
            1,
            vec![
                v4.clone(),
                v6.clone(),
                vpn.clone(),
                Capability::RouteRefresh,
            ],
        );
        let theirs = open(
            2,
            vec![
                v6,
                vpn,
                Capability::RouteRefresh,
                Capability::ExtendedMessage,
            ],
        );
        let session = Session::negotiate(&ours, &theirs);
        assert_eq!(
            session.families,
            [FamilySession::plain(Family::IPV6_UNICAST)]
        );
        assert!(session.route_refresh && !session.extended_message);
        assert_eq!(session.max_message_len(), 4_096);
    }

    #[test]
    fn one_end_sends_several_paths_where_the_other_receives_them() {
        let family = Family::IPV4_UNICAST;
        let paths = |send, receive| {
            Capability::AddPath(vec![AddPath {
                family,
                send,
                receive,
            }])
        };
        let session = Session::negotiate(
            &open(1, vec![paths(true, true)]),
            &open(2, vec![paths(false, true)]),
        );
        let agreed = session.family(family).unwrap();
        assert!(agreed.add_path_send && !agreed.add_path_receive);
    }
}
