//! What comes from the machine and its operator: configuration, links, next hops, commands.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Speaker;
use super::message::Input;
use super::peer::{NOWHERE, Peer, at, terms};
use crate::Config;
use crate::config::NeighborOptions;
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

    fn enable(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.enabled = true;
            self.event(id, Event::Start);
        }
    }

    fn disable(&mut self, id: PeerId, message: &str) {
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
    fn originate(&mut self, prefixes: &[IpNet], attributes: &Arc<PathAttributes>) {
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

    fn withdraw_own(&mut self, prefixes: &[IpNet]) {
        for prefix in prefixes {
            let family = Family::of(prefix);
            let table = &mut self.tables[at(family)];
            if let Some(slot) = table.withdraw(&prefix.trunc(), PeerId::LOCAL, 0) {
                self.touched(family, slot);
            }
        }
    }
}

// === impl Speaker: configuration ===

impl Speaker {
    /// Makes the speaker what the configuration says; what is the same is left alone.
    pub(super) fn configure(&mut self, config: Config) {
        let old = std::mem::replace(&mut self.config, config);
        let identity = (old.asn, old.router_id) != (self.config.asn, self.config.router_id);
        if identity {
            self.itself = None;
        }
        self.remove_unlisted();
        for neighbor in self.config.neighbors.clone() {
            let interface = neighbor.interface.as_deref().map(Arc::from);
            let name = neighbor.name();
            match self
                .peers
                .values()
                .find(|peer| peer.name == name)
                .map(|peer| peer.id)
            {
                Some(id) => self.adapt(id, neighbor.options, identity),
                None => {
                    let id = self.add_peer(name, neighbor.options, neighbor.address, interface);
                    self.defer_for(id);
                    if self.peers.get(&id).is_some_and(|peer| peer.enabled) {
                        self.event(id, Event::Start);
                    }
                }
            }
        }
        self.end_deferral_if_idle();
        if old.policies != self.config.policies || old.require_policy != self.config.require_policy
        {
            self.peers
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|id| self.import_again(id));
        }
        let gone: Vec<IpNet> = old
            .announce
            .iter()
            .filter(|net| !self.config.announce.contains(net))
            .copied()
            .collect();
        self.withdraw_own(&gone);
        self.originate(&self.config.announce.clone(), &Arc::default());
        if old.selection != self.config.selection {
            self.choose_all();
        }
        self.export_again(
            old.policies != self.config.policies
                || old.graceful_shutdown != self.config.graceful_shutdown,
        );
    }

    fn remove_unlisted(&mut self) {
        let listed: HashSet<String> = self
            .config
            .neighbors
            .iter()
            .map(|neighbor| neighbor.name())
            .collect();
        let gone = self
            .peers
            .values()
            .filter(|peer| !peer.dynamic && !listed.contains(&peer.name));
        for id in gone.map(|peer| peer.id).collect::<Vec<_>>() {
            let why = self.hard(id, Notification::cease(CeaseError::PeerDeconfigured));
            self.event(id, Event::End(why, Pause::UntilStart));
            Family::SUPPORTED
                .into_iter()
                .for_each(|family| self.remove_paths(id, family, |_| true));
            self.deferral_peer_gone(id);
            self.peers.remove(&id);
        }
    }

    /// Gives a peer other options, with as little disturbance as they allow.
    fn adapt(&mut self, id: PeerId, options: NeighborOptions, identity: bool) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let old = std::mem::replace(&mut peer.options, options);
        if old == peer.options && !identity {
            return;
        }
        let unnumbered = peer.name.parse::<IpAddr>().is_err();
        peer.fsm.terms = terms(&self.config, &peer.options, unnumbered);
        // What the session itself knows nothing of.
        let session_stays = NeighborOptions {
            bfd: old.bfd,
            import: old.import.clone(),
            export: old.export.clone(),
            max_prefixes: old.max_prefixes,
            description: old.description.clone(),
            shutdown: old.shutdown,
            ..peer.options.clone()
        } == old;
        if peer.options.shutdown != old.shutdown {
            match peer.options.shutdown {
                true => self.disable(id, ""),
                false => self.enable(id),
            }
        } else if !session_stays || identity {
            let why = self.hard(id, Notification::cease(CeaseError::ConfigurationChange));
            self.event(id, Event::End(why, Pause::For(Duration::ZERO)));
        } else if old.import != peer.options.import {
            self.import_again(id);
        }
    }

    fn choose_all(&mut self) {
        for family in Family::SUPPORTED {
            for slot in 0..self.tables[at(family)].bound() {
                self.touched(family, slot);
            }
        }
    }

    /// Has all peers told what they should be told now.
    fn export_again(&mut self, everything: bool) {
        if self.deferral.is_some() {
            return;
        }
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.regroup(id);
        }
        if everything {
            for at_group in 0..self.groups.len() {
                self.groups[at_group].forget();
                self.fill(at_group, &[]);
            }
        }
    }

    /// Moves a peer to the update group that it belongs to now, and sends it the difference.
    fn regroup(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(agreement) = peer.session.as_ref().map(|live| live.agreement.clone()) else {
            return;
        };
        let egress = peer.egress(&self.config, &agreement);
        let Some(session) = peer.session.as_mut().filter(|live| live.egress != egress) else {
            return;
        };
        let old = std::mem::replace(&mut session.egress, egress.clone());
        let Some(left) = self.groups.iter().position(|group| group.egress == old) else {
            return;
        };
        let mut left_group = crate::rib::Group::new(old);
        std::mem::swap(&mut left_group, &mut self.groups[left]);
        left_group.members.retain(|member| *member != id);
        self.place(id, egress);
        let joined = self.groups.iter().find(|group| group.members.contains(&id));
        let Some((peer, joined)) = self.peers.get_mut(&id).zip(joined) else {
            return;
        };
        for table in &mut self.tables {
            let family = table.family();
            for slot in 0..table.bound() {
                let before = left_group.target(family, slot);
                let Some(session) = peer.session.as_mut() else {
                    return;
                };
                if before != joined.target(family, slot)
                    && session.pending[at(family)].push(slot, before.clone())
                {
                    table.hold(slot);
                }
            }
        }
        if left_group.members.is_empty() {
            self.groups.swap_remove(left);
        } else {
            self.groups[left] = left_group;
        }
    }
}
