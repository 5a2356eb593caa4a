//! The table of one family: under each prefix the paths of all peers, and what was chosen.
//!
//! The table decides nothing about when to choose: its owner puts and removes paths, then has the
//! prefix [chosen](Table::choose). What changes for forwarding collects in a queue, a prefix once
//! however often it changes, and is [taken](Table::take_changes) as fast as the taker can.

use std::collections::VecDeque;
use std::sync::Arc;

use ipnet::IpNet;

use super::chunked::Chunked;
use super::forwarding::{NextHopSets, NextHops, RouteChange};
use super::index::{PrefixIndex, Slot};
use super::paths::{Choice, Freshness, Path, Paths};
use super::route::{PeerId, Route};
use super::select;
use crate::Time;
use crate::config::Selection;
use crate::types::Family;

/// The routes of one family.
#[derive(Debug)]
pub struct Table {
    family: Family,
    index: PrefixIndex,
    entries: Chunked<Entry>,
    changed: VecDeque<Slot>,
    sets: NextHopSets,
}

/// What is known of one prefix.
#[derive(Debug, Default)]
struct Entry {
    paths: Paths,
    /// What the forwarding table was (or is about to be) told.
    forwarding: Option<Arc<NextHops>>,
    /// When `forwarding` changed, in seconds.
    since: u32,
    /// How many queues the prefix is in.
    holds: u16,
    /// The prefix is among the changes.
    queued: bool,
}

// === impl Table ===

impl Table {
    /// An empty table.
    pub fn new(family: Family, seed: u64) -> Self {
        Table {
            family,
            index: PrefixIndex::new(family.afi == Family::AFI_IPV6, seed),
            entries: Chunked::new(),
            changed: VecDeque::new(),
            sets: NextHopSets::default(),
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Adds a path, or puts it in the place of the one that the peer announced before. The slot,
    /// and whether the path is new.
    pub fn put(&mut self, prefix: &IpNet, id: u32, route: Arc<Route>) -> (Slot, bool) {
        let slot = self.index.insert(prefix);
        let paths = &mut self.entries.grow(slot).paths;
        let fresh = Path {
            route,
            id,
            freshness: Freshness::Fresh,
            choice: Choice::Unused,
        };
        let peer = fresh.peer();
        let replaced = paths.put(fresh);
        if let Some(old) = &replaced
            && let Some(new) = paths
                .as_mut_slice()
                .iter_mut()
                .find(|path| path.is(peer, id))
            && Arc::ptr_eq(&old.route, &new.route)
        {
            new.choice = old.choice;
        }
        (slot, replaced.is_none())
    }

    /// Removes a peer's path; the slot if there was one.
    pub fn withdraw(&mut self, prefix: &IpNet, peer: PeerId, id: u32) -> Option<Slot> {
        let slot = self.index.find(prefix)?;
        let removed = self.remove(slot, |path| path.is(peer, id));
        (removed > 0).then_some(slot)
    }

    /// Removes the paths of a prefix that `gone` says; how many.
    pub fn remove(&mut self, slot: Slot, gone: impl FnMut(&Path) -> bool) -> usize {
        self.entries
            .get_mut(slot)
            .map_or(0, |entry| entry.paths.remove(gone))
    }

    /// Chooses among the paths of a prefix.
    pub fn choose(&mut self, slot: Slot, rules: &Selection, now: Time) {
        let Some(entry) = self.entries.get_mut(slot) else {
            return;
        };
        select::choose(entry.paths.as_mut_slice(), rules);
        let forwarding = self.sets.of(entry.paths.as_slice());
        if entry.forwarding != forwarding {
            entry.forwarding = forwarding;
            entry.since = now.seconds();
            if !entry.queued {
                entry.queued = true;
                self.changed.push_back(slot);
            }
        }
    }

    /// Has a prefix among the changes again; whether it is forwarded.
    pub fn change_again(&mut self, slot: Slot) -> bool {
        let Some(entry) = self.entries.get_mut(slot) else {
            return false;
        };
        if entry.forwarding.is_some() && !entry.queued {
            entry.queued = true;
            self.changed.push_back(slot);
        }
        entry.forwarding.is_some()
    }

    /// The next changes of forwarding, at most `limit`, oldest first.
    pub fn take_changes(&mut self, limit: usize) -> Vec<RouteChange> {
        let count = limit.min(self.changed.len());
        let mut changes = Vec::with_capacity(count);
        for slot in self.changed.drain(..count) {
            let Some(entry) = self.entries.get_mut(slot) else {
                continue;
            };
            entry.queued = false;
            let Some(prefix) = self.index.prefix(slot) else {
                continue;
            };
            changes.push(RouteChange {
                prefix,
                next_hops: entry.forwarding.clone(),
            });
            release(&mut self.index, entry, slot);
        }
        if self.changed.is_empty() {
            self.changed = VecDeque::new();
        }
        changes
    }

    /// Whether there are changes to take.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Keeps the slot of a prefix although it may have no path left.
    pub fn hold(&mut self, slot: Slot) {
        let entry = self.entries.grow(slot);
        entry.holds = entry.holds.saturating_add(1);
    }

    /// Takes back a [`Table::hold`].
    pub fn unhold(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.holds = entry.holds.saturating_sub(1);
        }
        self.release(slot);
    }

    /// Frees the slot of a prefix of which nothing is known any more.
    pub fn release(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot) {
            release(&mut self.index, entry, slot);
        }
    }

    /// The paths of a prefix.
    pub fn paths(&self, slot: Slot) -> &[Path] {
        self.entries
            .get(slot)
            .map_or(&[], |entry| entry.paths.as_slice())
    }

    /// The paths of a prefix.
    pub fn paths_mut(&mut self, slot: Slot) -> &mut [Path] {
        self.entries
            .get_mut(slot)
            .map_or(&mut [], |entry| entry.paths.as_mut_slice())
    }

    /// How packets to a prefix are forwarded, and since when (in seconds).
    pub fn forwarding(&self, slot: Slot) -> Option<(&Arc<NextHops>, u32)> {
        let entry = self.entries.get(slot)?;
        entry
            .forwarding
            .as_ref()
            .map(|next_hops| (next_hops, entry.since))
    }

    /// The prefix of a slot.
    pub fn prefix(&self, slot: Slot) -> Option<IpNet> {
        self.index.prefix(slot)
    }

    /// The slot of a prefix.
    pub fn find(&self, prefix: &IpNet) -> Option<Slot> {
        self.index.find(prefix)
    }

    /// One more than the highest slot.
    pub fn bound(&self) -> Slot {
        self.index.bound()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn release(index: &mut PrefixIndex, entry: &mut Entry, slot: Slot) {
    if entry.paths.is_empty() && entry.holds == 0 && !entry.queued {
        entry.forwarding = None;
        index.remove(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
