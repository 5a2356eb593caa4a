//! Graceful restart (RFC 4724, 8538, 9494): routes of a peer that is away for a moment are kept,
//! and after our own restart nothing is chosen before the peers have sent what they have.
//!
//! A session that BFD or the link ended keeps nothing: then the forwarding is gone too.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Speaker;
use super::message::Notice;
use super::peer::{AfterStale, at};
use crate::fsm::{Agreement, Why};
use crate::rib::{Freshness, Path, PeerId};
use crate::time::due;
use crate::types::{CeaseError, Community, Family, Notification, NotificationError};
use crate::{Config, Time};

/// Selection waits for the peers after a restart of ours.
#[derive(Debug)]
pub(super) struct Deferral {
    /// At the latest.
    pub until: Time,
    /// For these, until they have sent everything.
    waiting: BTreeSet<PeerId>,
}

impl Deferral {
    /// Waits, if this speaker was restarted.
    pub fn start(config: &Config, now: Time) -> Option<Deferral> {
        let restart = &config.graceful_restart;
        let wait = Duration::from_secs(restart.selection_deferral_seconds.into());
        (restart.enabled && restart.restarting).then(|| Deferral {
            until: now + wait,
            waiting: BTreeSet::new(),
        })
    }
}

// === impl Speaker: helping a peer that restarts ===

impl Speaker {
    /// A session ended: which routes of the peer stay, and for how long.
    pub(super) fn retain_or_remove(&mut self, id: PeerId, agreement: &Agreement, why: &Why) {
        for family in Family::SUPPORTED {
            let plan = self.retention(agreement, family, why);
            // What was stale already is not kept a second time.
            match plan {
                None => self.remove_paths(id, family, |_| true),
                Some(_) => self.remove_paths(id, family, |path| path.freshness != Freshness::Fresh),
            }
            let has_paths = self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.families[at(family)].paths > 0);
            let Some((wait, then)) = plan.filter(|_| has_paths) else {
                self.set_stale(id, family, None, AfterStale::Remove);
                continue;
            };
            self.set_stale(id, family, Some(self.now + wait), then);
            self.age(id, family, Freshness::Stale);
            self.notice(id, Notice::Kept(family));
        }
    }

    fn retention(
        &self,
        agreement: &Agreement,
        family: Family,
        why: &Why,
    ) -> Option<(Duration, AfterStale)> {
        let ours = &self.config.graceful_restart;
        let theirs = agreement
            .graceful_restart
            .as_ref()
            .filter(|_| ours.enabled)?;
        let notified = theirs.notification && ours.notification;
        let graceful = match why {
            Why::Closed | Why::Replaced => true,
            Why::Sent(notification) | Why::Received(notification) => {
                notified && !is_hard(notification)
            }
            Why::BfdDown | Why::LinkDown | Why::Silent => false,
        };
        let takes_part = theirs.families.iter().any(|one| one.family == family);
        if !graceful || !takes_part {
            return None;
        }
        let long = agreement.long_lived.iter().find(|one| one.family == family);
        let then = long.filter(|one| one.stale_time > 0 && ours.long_lived_seconds > 0);
        let then = then.map_or(AfterStale::Remove, |one| {
            AfterStale::KeepFor(one.stale_time.min(ours.long_lived_seconds))
        });
        Some((Duration::from_secs(theirs.restart_time.into()), then))
    }

    /// The peer is back: its stale routes wait for End-of-RIB, if it kept its forwarding.
    pub(super) fn resume_stale(&mut self, id: PeerId) {
        let wait = Duration::from_secs(self.config.graceful_restart.stale_path_seconds.into());
        for family in Family::SUPPORTED {
            let Some(peer) = self.peers.get(&id) else {
                return;
            };
            let Some(session) = peer.session.as_ref() else {
                return;
            };
            if peer.families[at(family)].stale_until.is_none() {
                continue;
            }
            let restart = session.agreement.graceful_restart.iter();
            let mut families = restart.flat_map(|restart| &restart.families);
            let preserved = families.any(|one| one.family == family && one.forwarding);
            if preserved {
                self.set_stale(id, family, Some(self.now + wait), AfterStale::Remove);
            } else {
                self.forget_stale(id, family);
            }
        }
    }

    /// The peer has sent all its routes: what is still stale is gone.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        if !family.is_supported() {
            return;
        }
        self.forget_stale(id, family);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut peer.families[at(family)].end_of_rib, true) {
            self.notice(id, Notice::EndOfRib(family));
        }
        self.deferral_end_of_rib(id);
    }

    /// What is stale of a peer goes.
    pub(super) fn forget_stale(&mut self, id: PeerId, family: Family) {
        self.set_stale(id, family, None, AfterStale::Remove);
        self.remove_paths(id, family, |path| path.freshness != Freshness::Fresh);
    }

    /// The peer sends everything again (RFC 7313): what it does not is gone at the end.
    pub(super) fn refresh_begins(&mut self, id: PeerId, family: Family) {
        let wait = Duration::from_secs(self.config.graceful_restart.stale_path_seconds.into());
        self.set_stale(id, family, Some(self.now + wait), AfterStale::Remove);
        self.age(id, family, Freshness::Stale);
    }

    /// Stale routes whose time has come go, or stay for long.
    pub(super) fn expire_stale(&mut self, id: PeerId) {
        for family in Family::SUPPORTED {
            let Some(peer) = self.peers.get(&id) else {
                return;
            };
            let state = peer.families[at(family)];
            if !due(state.stale_until, self.now) {
                continue;
            }
            match state.then {
                AfterStale::Remove => {
                    self.forget_stale(id, family);
                    self.drop_if_idle(id);
                }
                AfterStale::KeepFor(seconds) => {
                    let until = self.now + Duration::from_secs(seconds.into());
                    self.set_stale(id, family, Some(until), AfterStale::Remove);
                    self.remove_paths(id, family, forbids_long);
                    self.age(id, family, Freshness::LongLivedStale);
                }
            }
        }
    }

    fn set_stale(&mut self, id: PeerId, family: Family, until: Option<Time>, then: AfterStale) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let state = &mut peer.families[at(family)];
            state.stale_until = until;
            state.then = then;
        }
    }

    /// Marks all paths of a peer.
    fn age(&mut self, id: PeerId, family: Family, freshness: Freshness) {
        for slot in 0..self.tables[at(family)].bound() {
            let paths = self.tables[at(family)].paths_mut(slot).iter_mut();
            let mut changed = false;
            for path in paths.filter(|path| path.peer() == id) {
                path.freshness = freshness;
                changed = true;
            }
            if changed && freshness == Freshness::LongLivedStale {
                self.touched(family, slot);
            }
        }
    }
}

/// NO_LLGR.
fn forbids_long(path: &Path) -> bool {
    path.route
        .received
        .communities
        .contains(&Community::NO_LLGR)
}

fn is_hard(notification: &Notification) -> bool {
    notification.error == NotificationError::Cease(CeaseError::HardReset)
}

// === impl Speaker: our own restart ===

impl Speaker {
    /// Selection waits for this peer too.
    pub(super) fn defer_for(&mut self, id: PeerId) {
        if let Some(deferral) = &mut self.deferral {
            deferral.waiting.insert(id);
        }
    }

    /// A peer that does not take part, or restarts itself, is not waited for.
    pub(super) fn deferral_peer_up(&mut self, id: PeerId) {
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let restart = session.and_then(|session| session.agreement.graceful_restart.as_ref());
        if restart.is_none_or(|restart| restart.restarting) {
            self.deferral_peer_gone(id);
        }
    }

    /// A peer is not waited for any more.
    pub(super) fn deferral_peer_gone(&mut self, id: PeerId) {
        if let Some(deferral) = &mut self.deferral {
            deferral.waiting.remove(&id);
        }
        self.end_deferral_if_idle();
    }

    fn deferral_end_of_rib(&mut self, id: PeerId) {
        let complete = self.peers.get(&id).is_some_and(|peer| {
            let families = peer
                .session
                .iter()
                .flat_map(|live| &live.agreement.session.families);
            families
                .into_iter()
                .all(|family| peer.families[at(family.family)].end_of_rib)
        });
        if complete {
            self.deferral_peer_gone(id);
        }
    }

    /// Time is up.
    pub(super) fn expire_deferral(&mut self) {
        if self
            .deferral
            .as_ref()
            .is_some_and(|deferral| deferral.until <= self.now)
        {
            self.end_deferral();
        }
    }

    pub(super) fn end_deferral_if_idle(&mut self) {
        if self
            .deferral
            .as_ref()
            .is_some_and(|deferral| deferral.waiting.is_empty())
        {
            self.end_deferral();
        }
    }

    /// Chooses everything, and has it sent to everybody.
    fn end_deferral(&mut self) {
        self.deferral = None;
        for family in Family::SUPPORTED {
            let table = &mut self.tables[at(family)];
            for slot in 0..table.bound() {
                table.choose(slot, &self.config.selection, self.now);
                table.release(slot);
            }
        }
        for at_group in 0..self.groups.len() {
            let members = self.groups[at_group].members.clone();
            self.fill(at_group, &members);
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.walk(id);
        }
    }
}
