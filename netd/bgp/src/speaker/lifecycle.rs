//! Sessions come and go: connections are given to peers, and what a peer's machine wants is done.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{self, Reader};
use super::message::{Endpoint, Notice, Output};
use super::peer::{Live, Peer, Wire, at};
use super::{Speaker, local};
use crate::Time;
use crate::config::{NeighborOptions, Range};
use crate::fsm::{Action, Agreement, ConnectionId, Event, Why};
use crate::rib::{Egress, Group, PeerId, Pending};
use crate::types::{Family, Message, Notification};
use crate::wire::Session;

impl Speaker {
    /// Somebody connected: to a peer that is listed, or one of a range.
    pub(super) fn accepted(&mut self, connection: ConnectionId, endpoint: Endpoint) {
        let known = self
            .peer_at(&endpoint)
            .or_else(|| self.adopt(endpoint.remote));
        match known {
            Some(peer) => self.connected(peer, connection, endpoint, false),
            None => self.outputs.push_back(Output::Close { connection }),
        }
    }

    pub(super) fn peer_at(&self, endpoint: &Endpoint) -> Option<PeerId> {
        let found = self.peers.values().find(|peer| match peer.address {
            Some(address) if is_link_local(address) => {
                address == endpoint.remote
                    && peer.interface.as_deref() == endpoint.interface.as_deref()
            }
            Some(address) => address == endpoint.remote,
            // An unnumbered one that was not heard yet has made itself known now.
            None => {
                is_link_local(endpoint.remote)
                    && peer.interface.as_deref() == endpoint.interface.as_deref()
            }
        });
        found.map(|peer| peer.id)
    }

    /// A peer for an address in one of the ranges.
    fn adopt(&mut self, address: IpAddr) -> Option<PeerId> {
        let range = self.range_of(address)?;
        let dynamic = self
            .peers
            .values()
            .filter(|peer| peer.dynamic)
            .filter(|peer| {
                peer.address
                    .is_some_and(|address| range.prefix.contains(&address))
            });
        if dynamic.count() >= range.limit as usize {
            return None;
        }
        let mut options = range.options.clone();
        options.passive = true;
        let id = self.add_peer(address.to_string(), options, Some(address), None);
        self.peers.get_mut(&id)?.dynamic = true;
        self.event(id, Event::Start);
        Some(id)
    }

    /// The narrowest range with an address.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        let ranges = self
            .config
            .ranges
            .iter()
            .filter(|range| range.prefix.contains(&address));
        ranges.max_by_key(|range| range.prefix.prefix_len())
    }

    /// A connection of a peer is there.
    pub(super) fn connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        endpoint: Endpoint,
        outgoing: bool,
    ) {
        let restarting = self.deferral.is_some();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.enabled) else {
            self.outputs.push_back(Output::Close { connection });
            return;
        };
        peer.address.get_or_insert(endpoint.remote);
        peer.interface = endpoint
            .interface
            .as_deref()
            .map(Arc::from)
            .or(peer.interface.take());
        peer.offer_restart(&self.config, restarting);
        peer.wires.insert(
            connection,
            Wire {
                endpoint,
                reader: Reader::new(),
            },
        );
        self.connections.insert(connection, id);
        self.event(
            id,
            Event::Connected {
                connection,
                outgoing,
            },
        );
    }

    /// Bytes came.
    pub(super) fn received(&mut self, connection: ConnectionId, bytes: &Bytes) {
        if let Some(wire) = self.wire(connection) {
            wire.reader.push(bytes);
        }
        // A message may close the connection, and changes how the next is read.
        while let Some(&id) = self.connections.get(&connection) {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let before = Session::before_open();
            let session = peer
                .fsm
                .agreement(connection)
                .map_or(&before, |agreed| &agreed.session);
            let Some(wire) = peer.wires.get_mut(&connection) else {
                return;
            };
            match wire.reader.next(session) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    peer.counters.messages_in += 1;
                    self.event(id, Event::Received(connection, message));
                }
                Err(notification) => self.event(id, Event::Malformed(connection, notification)),
            }
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, connection: ConnectionId) {
        if let Some(id) = self.forget_connection(connection) {
            self.event(id, Event::Closed(connection));
            self.drop_if_idle(id);
        }
    }

    fn wire(&mut self, connection: ConnectionId) -> Option<&mut Wire> {
        let id = self.connections.get(&connection)?;
        self.peers.get_mut(id)?.wires.get_mut(&connection)
    }

    fn forget_connection(&mut self, connection: ConnectionId) -> Option<PeerId> {
        let id = self.connections.remove(&connection)?;
        self.peers.get_mut(&id)?.wires.remove(&connection);
        Some(id)
    }

    /// Does what a peer's machine wants.
    pub(super) fn act(&mut self, id: PeerId, action: Action) {
        match action {
            Action::Connect => self.connect(id),
            Action::Abandon => self.outputs.push_back(Output::Abandon { peer: id }),
            Action::SendOpen(connection) => {
                let open = self.peers.get(&id).map(|peer| peer.fsm.terms.open());
                if let Some(open) = open {
                    self.send(id, connection, &Message::Open(open));
                }
            }
            Action::Send(connection, message) => self.send(id, connection, &message),
            Action::Close(connection) => {
                self.forget_connection(connection);
                self.outputs.push_back(Output::Close { connection });
                self.drop_if_idle(id);
            }
            Action::Up(connection, agreement) => self.up(id, connection, agreement),
            Action::Down(down) => self.down(id, down.why),
            Action::Update(update) => self.update(id, update),
            Action::Refresh(refresh) => self.refresh(id, refresh),
        }
    }

    fn connect(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        match peer.address {
            Some(address) => self
                .outputs
                .push_back(Output::Connect { peer: id, address }),
            // Unnumbered, and not heard yet.
            None => self.event(id, Event::ConnectFailed),
        }
    }

    /// Sends a message that is not an UPDATE.
    pub(super) fn send(&mut self, id: PeerId, connection: ConnectionId, message: &Message) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = Session::before_open();
        let session = peer
            .fsm
            .agreement(connection)
            .map_or(&before, |agreed| &agreed.session);
        match codec::write(message, session) {
            Ok(bytes) => {
                peer.counters.messages_out += 1;
                self.outputs.push_back(Output::Send { connection, bytes });
            }
            // Only an OPEN can be too long, by what is configured; nothing can come of it.
            Err(error) => self.notice(id, Notice::Unsendable(error)),
        }
    }

    /// A session is up: everything that we have is to be sent.
    fn up(&mut self, id: PeerId, connection: ConnectionId, agreement: Box<Agreement>) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(wire) = peer.wires.get(&connection) else {
            return;
        };
        let endpoint = wire.endpoint.clone();
        let source = Arc::new(peer.source(&agreement, &endpoint));
        let egress = peer.egress(&self.config, &agreement);
        peer.since = now;
        peer.met = true;
        peer.counters.established += 1;
        for family in &mut peer.families {
            family.end_of_rib = false;
            family.disabled = false;
            family.warned = false;
            family.refreshing = false;
        }
        peer.session = Some(Live {
            connection,
            source,
            agreement,
            endpoint,
            egress: egress.clone(),
            pending: [Pending::default(), Pending::default()],
            outstanding: 0,
            advertise_at: Time::default(),
        });
        self.notice(id, Notice::Up);
        self.link_works(id);
        self.resume_stale(id);
        self.join(id, egress);
        self.deferral_peer_up(id);
    }

    /// Puts a fresh peer into the update group that it belongs to, and has everything sent to it.
    fn join(&mut self, id: PeerId, egress: Egress) {
        self.place(id, egress);
        if self.deferral.is_none() {
            self.walk(id);
        }
    }

    /// Puts a peer into the update group that it belongs to.
    pub(super) fn place(&mut self, id: PeerId, egress: Egress) {
        let found = self.groups.iter().position(|group| group.egress == egress);
        let at_group = found.unwrap_or_else(|| {
            self.groups.push(Group::new(egress));
            self.groups.len() - 1
        });
        // What only its source could be told is not worked out for a group of one.
        let work_out = self.groups[at_group].members.len() < 2;
        self.groups[at_group].members.push(id);
        if work_out && self.deferral.is_none() {
            self.fill(at_group, &[id]);
        }
    }

    /// Works out what a group is told of everything. The difference is sent to its members,
    /// except those who are `fresh`: they are sent everything anyway.
    pub(super) fn fill(&mut self, at_group: usize, fresh: &[PeerId]) {
        let local = local(&self.config);
        let group = &mut self.groups[at_group];
        for table in &mut self.tables {
            let family = table.family();
            for slot in 0..table.bound() {
                let Some(before) = group.update(table, slot, &local) else {
                    continue;
                };
                for member in group
                    .members
                    .iter()
                    .filter(|member| !fresh.contains(member))
                {
                    let peer = self.peers.get_mut(member);
                    let Some(session) = peer.and_then(|peer| peer.session.as_mut()) else {
                        continue;
                    };
                    if session.pending[at(family)].push(slot, before.clone()) {
                        table.hold(slot);
                    }
                }
            }
        }
    }

    /// Has everything sent to a peer.
    pub(super) fn walk(&mut self, id: PeerId) {
        let bounds = [self.tables[0].bound(), self.tables[1].bound()];
        let Some(session) = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.session.as_mut())
        else {
            return;
        };
        for family in &session.agreement.session.families {
            session.pending[at(family.family)].walk(bounds[at(family.family)]);
        }
    }

    /// A session is down.
    fn down(&mut self, id: PeerId, why: Why) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(mut session) = peer.session.take() else {
            return;
        };
        peer.since = now;
        self.notice(id, Notice::Down(why.clone()));
        for family in Family::SUPPORTED {
            for slot in session.pending[at(family)].clear() {
                self.tables[at(family)].unhold(slot);
            }
        }
        for group in &mut self.groups {
            group.members.retain(|member| *member != id);
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.retain_or_remove(id, &session.agreement, &why);
        self.deferral_peer_gone(id);
    }

    /// A peer from a range goes when nothing is left of its session.
    pub(super) fn drop_if_idle(&mut self, id: PeerId) {
        let gone = self.peers.get(&id).is_some_and(|peer| {
            let stale = peer.families.iter().any(|family| family.paths > 0);
            peer.dynamic && peer.wires.is_empty() && peer.session.is_none() && !stale
        });
        if gone {
            self.peers.remove(&id);
        }
    }

    /// Adds a peer.
    pub(super) fn add_peer(
        &mut self,
        name: String,
        options: NeighborOptions,
        address: Option<IpAddr>,
        interface: Option<Arc<str>>,
    ) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let mut peer = Peer::new(id, name, options, address, interface, &self.config);
        peer.since = self.now;
        self.peers.insert(id, peer);
        id
    }

    /// Ends a peer's session for good reason, so that the peer does not keep our routes.
    pub(super) fn hard(&self, id: PeerId, notification: Notification) -> Why {
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let keeps = session.is_some_and(|session| {
            let theirs = session.agreement.graceful_restart.as_ref();
            theirs.is_some_and(|theirs| theirs.notification)
                && self.config.graceful_restart.notification
        });
        Why::Sent(if keeps {
            notification.into_hard_reset()
        } else {
            notification
        })
    }

    pub(super) fn notice(&mut self, peer: PeerId, notice: Notice) {
        let name = self.peer_name(peer).to_owned();
        self.outputs
            .push_back(Output::Notice { peer, name, notice });
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
