//! The speaker: the state machines of all peers, the tables, and what goes between them.
//!
//! ```text
//!  bytes ──▶ codec ──▶ fsm ──▶ receive ──▶ table ──▶ choose ──▶ groups ──▶ advertise ──▶ bytes
//!                       │        (import)               │        (export)
//!                       ▼                               ▼
//!                   lifecycle, restart             route changes
//! ```
//!
//! An [`Input`] is handled at once and wholly; what it leads to is then taken: [outputs], and
//! [route changes], at the pace of the taker. What is to be sent to a peer waits here, a prefix
//! once, while the peer is slow.
//!
//! [outputs]: Speaker::take_outputs
//! [route changes]: Speaker::take_changes

mod advertise;
mod codec;
mod configure;
mod lifecycle;
mod message;
mod operate;
mod peer;
mod receive;
mod record;
mod restart;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
pub use message::{Endpoint, Input, Notice, Output};
pub use record::{Beginning, Recorded};
pub use view::{FamilyView, Location, PathView, PeerView, RouteView, Scope};

use crate::chance::Chance;
use crate::fsm::{Action, ConnectionId, Event};
use crate::rib::{Group, Local, PeerId, RouteChange, Routes, Slot, Source, Table};
use crate::time::earliest;
use crate::types::Family;
use crate::{Config, Time};
use peer::{Peer, at};
use restart::Deferral;

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
    chance: Chance,
    now: Time,
    peers: BTreeMap<PeerId, Peer>,
    next_peer: u32,
    connections: HashMap<ConnectionId, PeerId>,
    tables: [Table; 2],
    routes: Routes,
    /// The speaker itself as the source of what it originates.
    itself: Option<Arc<Source>>,
    groups: Vec<Group>,
    metrics: HashMap<IpAddr, u32>,
    links_down: HashSet<Arc<str>>,
    deferral: Option<Deferral>,
    outputs: VecDeque<Output>,
}

// === impl Speaker ===

impl Speaker {
    /// A speaker with its peers, none of which is tried before [`Input::Tick`].
    ///
    /// `seed` is for jitter and for the hash of prefixes; give another one each time.
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        let mut chance = Chance::new(seed);
        let [v4, v6] = Family::SUPPORTED.map(|family| Table::new(family, chance.number()));
        let mut speaker = Speaker {
            chance,
            now,
            peers: BTreeMap::new(),
            next_peer: 1,
            connections: HashMap::new(),
            tables: [v4, v6],
            routes: Routes::default(),
            itself: None,
            groups: Vec::new(),
            metrics: HashMap::new(),
            links_down: HashSet::new(),
            deferral: Deferral::start(&config, now),
            outputs: VecDeque::new(),
            config: Config::new(config.asn, config.router_id),
        };
        speaker.configure(config);
        speaker
    }

    /// Handles what happened at `now`, which must not be earlier than it was before.
    pub fn handle(&mut self, input: Input, now: Time) {
        self.now = now.max(self.now);
        match input {
            Input::Accepted {
                connection,
                endpoint,
            } => self.accepted(connection, endpoint),
            Input::Connected {
                peer,
                connection,
                endpoint,
            } => {
                self.connected(peer, connection, endpoint, true);
            }
            Input::ConnectFailed { peer } => self.event(peer, Event::ConnectFailed),
            Input::Received { connection, bytes } => self.received(connection, &bytes),
            Input::Sent { connection, bytes } => self.sent(connection, bytes),
            Input::Closed { connection } => self.closed(connection),
            Input::Tick => self.tick(),
            operation => self.operate(operation),
        }
        self.advertise();
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let peers = self.peers.values().map(|peer| {
            let stale = peer.families.iter().map(|family| family.stale_until);
            earliest(stale.chain([peer.fsm.deadline(), self.advertisement_deadline(peer)]))
        });
        let deferral = self.deferral.as_ref().map(|deferral| deferral.until);
        earliest(peers.chain([deferral]))
    }

    /// What the speaker wants done, in order.
    pub fn take_outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }

    /// The next hops whose ways are to be told of (see [`Output::Resolve`]).
    pub fn resolved(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.metrics.keys().copied()
    }

    /// The next changes of forwarding, at most `limit`. A prefix that changes again before it is
    /// taken is in here once.
    pub fn take_changes(&mut self, limit: usize) -> Vec<RouteChange> {
        let mut changes = self.tables[0].take_changes(limit);
        if changes.len() < limit {
            changes.extend(self.tables[1].take_changes(limit - changes.len()));
        }
        changes
    }

    /// Has a prefix among the changes again, because what was made of it did not last. Whether
    /// its packets are to be forwarded by us at all.
    pub fn change_again(&mut self, prefix: &IpNet) -> bool {
        let table = &mut self.tables[at(Family::of(prefix))];
        table
            .find(prefix)
            .is_some_and(|slot| table.change_again(slot))
    }

    /// Whether there are changes to take.
    pub fn has_changes(&self) -> bool {
        self.tables.iter().any(Table::has_changes)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn tick(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.event(id, Event::Tick);
            self.expire_stale(id);
        }
        self.expire_deferral();
    }

    /// Has a peer's machine handle an event, and does what it wants.
    fn event(&mut self, id: PeerId, event: Event) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut actions: Vec<Action> = Vec::new();
        peer.fsm
            .handle(event, self.now, &mut self.chance, &mut actions);
        for action in actions {
            self.act(id, action);
        }
    }

    /// The paths of a prefix changed: choose, tell the forwarding table and the peers.
    fn touched(&mut self, family: Family, slot: Slot) {
        if self.deferral.is_some() {
            return;
        }
        let table = &mut self.tables[at(family)];
        table.choose(slot, &self.config.selection, self.now);
        self.retell(family, slot);
    }

    /// Works out anew what the peers are told of a prefix.
    fn retell(&mut self, family: Family, slot: Slot) {
        let local = local(&self.config);
        let table = &mut self.tables[at(family)];
        for group in &mut self.groups {
            let Some(before) = group.update(table, slot, &local) else {
                continue;
            };
            for member in &group.members {
                let session = self
                    .peers
                    .get_mut(member)
                    .and_then(|peer| peer.session.as_mut());
                let Some(session) = session else { continue };
                if session.pending[at(family)].push(slot, before.clone()) {
                    table.hold(slot);
                }
            }
        }
        table.release(slot);
    }
}

/// What of the speaker itself goes into what it tells.
fn local(config: &Config) -> Local<'_> {
    Local {
        asn: config.asn,
        router_id: config.router_id,
        cluster: config.cluster(),
        graceful_shutdown: config.graceful_shutdown,
        policies: &config.policies,
    }
}
