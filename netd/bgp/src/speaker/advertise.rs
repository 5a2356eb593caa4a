//! Routes go out: what is pending for a peer is packed, by attributes, into UPDATEs, as fast as
//! the peer takes them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;

use super::Speaker;
use super::message::{Endpoint, Output};
use super::peer::{Live, Peer, at};
use crate::Time;
use crate::fsm::ConnectionId;
use crate::rib::pending::Next;
use crate::rib::{Group, OutRoute, PeerId, Table, Target};
use crate::types::{Family, Message, NextHop, Nlri, PathAttributes, RefreshSubtype, RouteRefresh};
use crate::wire::{self, Session};

/// Bytes of routes under way to a peer, at most (and one batch more).
const WINDOW: usize = 256 * 1024;
/// Prefixes that are packed together, at most.
const BATCH: usize = 4096;

/// Prefixes to send, sorted by what is to be said of them.
#[derive(Default)]
struct Batch {
    withdrawn: Vec<Nlri>,
    /// By the address of the shared route: those of one address have the same attributes.
    announced: HashMap<*const OutRoute, (Arc<OutRoute>, Vec<Nlri>)>,
    /// The order of first mention, so that the same input gives the same bytes.
    order: Vec<*const OutRoute>,
    /// All routes have been sent.
    walk_done: bool,
}

impl Speaker {
    /// Bytes have left: there may be room for more.
    pub(super) fn sent(&mut self, connection: ConnectionId, bytes: usize) {
        let Some(peer) = self
            .connections
            .get(&connection)
            .and_then(|id| self.peers.get_mut(id))
        else {
            return;
        };
        if let Some(session) = peer
            .session
            .as_mut()
            .filter(|live| live.connection == connection)
        {
            session.outstanding = session.outstanding.saturating_sub(bytes);
        }
    }

    /// When what is pending for a peer may be announced, if only the timer is in the way.
    pub(super) fn advertisement_deadline(&self, peer: &Peer) -> Option<Time> {
        let session = peer.session.as_ref()?;
        let waits = session.advertise_at > self.now
            && session.outstanding < WINDOW
            && session.pending.iter().any(|pending| !pending.is_empty());
        waits.then_some(session.advertise_at)
    }

    /// Sends what is pending and may be sent.
    pub(super) fn advertise(&mut self) {
        if self.deferral.is_some() {
            return;
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            for family in Family::SUPPORTED {
                self.advertise_family(id, family);
            }
        }
    }

    fn advertise_family(&mut self, id: PeerId, family: Family) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let interval = peer.options.timers.advertisement_interval();
        let Some(session) = peer.session.as_mut() else {
            return;
        };
        if session.pending[at(family)].is_empty() || session.advertise_at > now {
            return;
        }
        let Some(group) = self
            .groups
            .iter()
            .find(|group| group.egress == session.egress)
        else {
            return;
        };
        let table = &mut self.tables[at(family)];
        let mut spoke = false;
        while session.outstanding < WINDOW && !session.pending[at(family)].is_empty() {
            let batch = Batch::gather(id, session, family, group, table);
            let mut bytes = BytesMut::new();
            batch.write(session, family, &mut bytes);
            if batch.walk_done {
                let state = &mut peer.families[at(family)];
                let refresh = std::mem::take(&mut state.refreshing);
                finish_walk(session, family, refresh, &mut bytes);
            }
            if bytes.is_empty() {
                continue;
            }
            spoke = true;
            peer.counters.updates_out += 1;
            session.outstanding += bytes.len();
            let (connection, bytes) = (session.connection, bytes.freeze());
            self.outputs.push_back(Output::Send { connection, bytes });
        }
        if spoke && !interval.is_zero() {
            session.advertise_at = now + self.chance.jitter(interval);
        }
    }

    /// A peer asks for all routes again, or says that it sends all of its own.
    pub(super) fn refresh(&mut self, id: PeerId, refresh: RouteRefresh) {
        let family = refresh.family;
        if !family.is_supported() {
            return;
        }
        match refresh.subtype {
            RefreshSubtype::Request => self.send_again(id, family),
            RefreshSubtype::Begin => self.refresh_begins(id, family),
            RefreshSubtype::End => self.end_of_rib(id, family),
            RefreshSubtype::Other(_) => {}
        }
    }

    fn send_again(&mut self, id: PeerId, family: Family) {
        let bound = self.tables[at(family)].bound();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(session) = peer.session.as_mut() else {
            return;
        };
        let connection = session.connection;
        let agreed = &session.agreement.session;
        if agreed.family(family).is_none() {
            return;
        }
        session.pending[at(family)].walk(bound);
        if agreed.enhanced_route_refresh {
            peer.families[at(family)].refreshing = true;
            let begin = RouteRefresh {
                family,
                subtype: RefreshSubtype::Begin,
            };
            self.send(id, connection, &Message::RouteRefresh(begin));
        }
    }
}

/// All routes have been sent: say so.
fn finish_walk(session: &Live, family: Family, refresh: bool, bytes: &mut BytesMut) {
    let agreed = &session.agreement.session;
    if refresh && agreed.enhanced_route_refresh {
        let end = RouteRefresh {
            family,
            subtype: RefreshSubtype::End,
        };
        // A message of fixed size; there is nothing in it that could not be written.
        let _ = wire::encode(&Message::RouteRefresh(end), agreed, bytes);
    } else if session.agreement.graceful_restart.is_some() {
        wire::end_of_rib(family, bytes);
    }
}

// === impl Batch ===

impl Batch {
    /// Takes from what is pending for a peer.
    fn gather(
        id: PeerId,
        session: &mut Live,
        family: Family,
        group: &Group,
        table: &mut Table,
    ) -> Batch {
        let mut batch = Batch::default();
        let pending = &mut session.pending[at(family)];
        for _ in 0..BATCH {
            match pending.pop() {
                None => break,
                Some(Next::WalkDone) => {
                    batch.walk_done = true;
                    break;
                }
                Some(Next::Walked(slot)) => {
                    let target = group.target(family, slot);
                    if let Some(prefix) = table.prefix(slot) {
                        batch.add(id, prefix, &Target::None, target);
                    }
                }
                Some(Next::Changed(slot, before)) => {
                    if let Some(prefix) = table.prefix(slot) {
                        batch.add(id, prefix, &before, group.target(family, slot));
                    }
                    table.unhold(slot);
                }
            }
        }
        batch
    }

    /// Adds what has changed of a prefix between two targets.
    fn add(&mut self, peer: PeerId, prefix: ipnet::IpNet, before: &Target, after: &Target) {
        let (before, after) = (before.for_peer(peer), after.for_peer(peer));
        for (path_id, _) in &before {
            if !after.iter().any(|(id, _)| id == path_id) {
                self.withdrawn.push(Nlri {
                    prefix,
                    path_id: *path_id,
                });
            }
        }
        for (path_id, route) in after {
            let known = before
                .iter()
                .any(|(id, old)| *id == path_id && *old == route);
            if known {
                continue;
            }
            let key = Arc::as_ptr(route);
            let (_, prefixes) = self.announced.entry(key).or_insert_with(|| {
                self.order.push(key);
                (Arc::clone(route), Vec::new())
            });
            prefixes.push(Nlri { prefix, path_id });
        }
    }

    /// Writes it as UPDATEs.
    fn write(&self, session: &Live, family: Family, bytes: &mut BytesMut) {
        let agreed = &session.agreement.session;
        if agreed.family(family).is_none() {
            return;
        }
        if !self.withdrawn.is_empty() {
            // Withdrawals always fit; only an unsupported family could not be written.
            let _ = wire::withdraw(agreed, family, self.withdrawn.iter().copied(), bytes);
        }
        for key in &self.order {
            let Some((route, prefixes)) = self.announced.get(key) else {
                continue;
            };
            self.announce(session, family, route, prefixes, bytes);
        }
    }

    /// Announces prefixes; withdraws those that cannot be announced, rather than leave old ones.
    fn announce(
        &self,
        session: &Live,
        family: Family,
        route: &OutRoute,
        prefixes: &[Nlri],
        bytes: &mut BytesMut,
    ) {
        let agreed = &session.agreement.session;
        let mut attributes = PathAttributes::clone(&route.attributes);
        if attributes.next_hop.is_none() {
            attributes.next_hop = own_next_hop(&session.endpoint, agreed, family);
            if attributes.next_hop.is_none() && agreed.external {
                // Nothing was ever announced: there is no address to announce it with.
                return;
            }
        }
        let nlri = prefixes.iter().copied();
        if wire::announce(agreed, &attributes, family, nlri, bytes).is_err() {
            let _ = wire::withdraw(agreed, family, prefixes.iter().copied(), bytes);
        }
    }
}

/// Ourselves as next hop, as the peer can reach us.
fn own_next_hop(endpoint: &Endpoint, session: &Session, family: Family) -> Option<NextHop> {
    let extended = session
        .family(Family::IPV4_UNICAST)
        .is_some_and(|v4| v4.extended_next_hop);
    if family == Family::IPV4_UNICAST {
        match endpoint.local {
            IpAddr::V4(local) => return Some(NextHop::V4(local)),
            IpAddr::V6(_) if !extended => return endpoint.ipv4.map(NextHop::V4),
            IpAddr::V6(_) => {}
        }
    }
    match (endpoint.local, endpoint.ipv6) {
        (IpAddr::V6(local), global) if local.is_unicast_link_local() => {
            let global = global.unwrap_or(local);
            Some(NextHop::V6WithLinkLocal {
                global,
                link_local: local,
            })
        }
        (IpAddr::V6(local), _) => Some(NextHop::V6(local)),
        (IpAddr::V4(_), global) => global.map(NextHop::V6),
    }
}
