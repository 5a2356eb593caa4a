//! What comes from the machine and its operator: links, next hops, commands.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Speaker;
use super::message::Input;
use super::peer::{NOWHERE, Peer, at};
use crate::fsm::{Event, Pause, State, Why};
use crate::rib::route::UNREACHABLE;
use crate::rib::{PeerId, Source, SourceKind};
use crate::types::{CeaseError, Family, Notification, PathAttributes};

impl Speaker {
    /// Handles what does not come from a connection.
    pub(super) fn operate(&mut self, input: Input) {
        match input {
            Input::Configure(config) => self.configure(*config),
            Input::Announce {
                prefixes,
                attributes,
            } => self.originate(&prefixes, &attributes),
            Input::Withdraw { prefixes } => self.withdraw_own(&prefixes),
            Input::Located { peer, address } => self.located(peer, address),
            Input::BfdDown { peer } => self.bfd_down(peer),
            Input::Link { interface, up } => self.link(&interface, up),
            Input::NextHop { address, metric } => {
                let metric = metric.unwrap_or(UNREACHABLE);
                if self.metrics.insert(address, metric) != Some(metric) {
                    self.weigh_again();
                }
            }
            Input::Enable { peer } => self.enable(peer),
            Input::Disable { peer, message } => self.disable(peer, &message),
            Input::Reset { peer, message } => {
                let reset = CeaseError::AdministrativeReset;
                let why = self.hard(
                    peer,
                    Notification::cease_with_communication(reset, &message),
                );
                self.event(peer, Event::End(why, Pause::For(Duration::ZERO)));
            }
            Input::Shutdown { message } => {
                for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                    self.disable(peer, &message);
                }
            }
            Input::Leave => self.leave(),
            // Those of connections are handled where these are.
            _ => {}
        }
    }

    pub(super) fn enable(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.enabled = true;
            self.event(id, Event::Start);
        }
    }

    pub(super) fn disable(&mut self, id: PeerId, message: &str) {
        let shutdown = CeaseError::AdministrativeShutdown;
        let why = self.hard(
            id,
            Notification::cease_with_communication(shutdown, message),
        );
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.enabled = false;
            self.event(id, Event::End(why, Pause::UntilStart));
        }
    }

    /// The forwarding of a peer is gone: its session ends, and what was kept of an earlier one
    /// goes too. A peer without a session is not at fault: its link may be down.
    fn bfd_down(&mut self, id: PeerId) {
        if self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.session.is_some())
        {
            self.event(id, Event::End(Why::BfdDown, Pause::Damped));
        }
        for family in Family::SUPPORTED {
            self.forget_stale(id, family);
        }
    }

    fn leave(&mut self) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.enabled = false;
            }
            self.event(id, Event::End(Why::Silent, Pause::UntilStart));
        }
    }

    /// The address of an unnumbered peer was learned, or is gone.
    fn located(&mut self, id: PeerId, address: Option<IpAddr>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.address == address || peer.session.is_some() {
            return;
        }
        peer.address = address;
        if address.is_some() && peer.enabled {
            self.event(id, Event::Start);
        }
    }

    fn link(&mut self, interface: &str, up: bool) {
        let changed = match up {
            true => self.links_down.remove(interface),
            false => self.links_down.insert(Arc::from(interface)),
        };
        if !changed {
            if up {
                self.call_waiting(interface);
            }
            return;
        }
        let there = self
            .peers
            .values()
            .filter(|peer| peer.interface.as_deref() == Some(interface));
        let ids: Vec<PeerId> = there
            .filter(|peer| peer.enabled)
            .map(|peer| peer.id)
            .collect();
        for id in ids {
            // An attempt that was made over the dead link waits in vain, and so long.
            let idle = self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.wires.is_empty());
            if !up || idle {
                self.event(id, Event::End(Why::LinkDown, Pause::UntilStart));
            }
            if up {
                self.event(id, Event::Start);
            }
        }
        self.weigh_again();
    }

    /// Something of a link is new, and those behind it may be reached now: who only waits to be called
    /// again is called at once.
    fn call_waiting(&mut self, interface: &str) {
        let waits = |peer: &&Peer| {
            peer.interface.as_deref() == Some(interface)
                && peer.enabled
                && peer.wires.is_empty()
                && peer.fsm.state() == State::Active
        };
        let ids: Vec<PeerId> = self
            .peers
            .values()
            .filter(waits)
            .map(|peer| peer.id)
            .collect();
        for id in ids {
            self.event(id, Event::Start);
        }
    }

    /// A session came up over a link: whatever was said of the link before, it works. News of its
    /// carrier may come as much as a second late.
    pub(super) fn link_works(&mut self, id: PeerId) {
        let peer = self.peers.get(&id);
        if let Some(on) = peer.and_then(|peer| peer.interface.clone())
            && self.links_down.remove(&on)
        {
            self.weigh_again();
        }
    }

    /// Ways to next hops have changed: routes over them are chosen again.
    fn weigh_again(&mut self) {
        let mut changed = HashSet::new();
        for route in self.routes.iter() {
            let metric = route
                .gateway
                .as_ref()
                .map_or(0, |gateway| self.metric(gateway));
            if route.set_metric(metric) {
                changed.insert(route.id);
            }
        }
        if changed.is_empty() {
            return;
        }
        for family in Family::SUPPORTED {
            for slot in 0..self.tables[at(family)].bound() {
                let paths = self.tables[at(family)].paths(slot);
                if paths.iter().any(|path| changed.contains(&path.route.id)) {
                    self.touched(family, slot);
                }
            }
        }
    }
}

// === impl Speaker: what originates here ===

impl Speaker {
    pub(super) fn originate(&mut self, prefixes: &[IpNet], attributes: &Arc<PathAttributes>) {
        let source = Arc::clone(self.itself.get_or_insert_with(|| {
            Arc::new(Source {
                peer: PeerId::LOCAL,
                kind: SourceKind::Local,
                router_id: self.config.router_id,
                address: NOWHERE,
                client: false,
                interface: None,
            })
        }));
        let accepted = Ok(Arc::clone(attributes));
        let route = self.routes.intern(&source, attributes, accepted, None, 0);
        for prefix in prefixes {
            let family = Family::of(prefix);
            let (slot, _) = self.tables[at(family)].put(&prefix.trunc(), 0, Arc::clone(&route));
            self.touched(family, slot);
        }
    }

    pub(super) fn withdraw_own(&mut self, prefixes: &[IpNet]) {
        for prefix in prefixes {
            let family = Family::of(prefix);
            let table = &mut self.tables[at(family)];
            if let Some(slot) = table.withdraw(&prefix.trunc(), PeerId::LOCAL, 0) {
                self.touched(family, slot);
            }
        }
    }
}
