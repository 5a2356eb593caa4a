//! Another configuration: peers come, go and change, with as little disturbance as that allows.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Speaker;
use super::peer::{at, terms};
use crate::Config;
use crate::config::NeighborOptions;
use crate::fsm::{Event, Pause};
use crate::rib::PeerId;
use crate::types::{CeaseError, Family, Notification};

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
