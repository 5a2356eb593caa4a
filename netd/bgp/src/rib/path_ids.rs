//! Path identifiers (RFC 7911) that a group's peers are told: one for each path identifier of each
//! peer that a path came from.
//!
//! A number is given again when no path bears it any more, so that a peer that announces under
//! ever new identifiers costs no more than the paths it has. That is safe at any time: what is
//! told of a prefix is compared by number and route, and a route under a number that stood for
//! another takes its place, as RFC 7911 section 3 has it.

use std::collections::{HashMap, HashSet};

use super::route::PeerId;

/// A path: the peer it came from and the identifier that it has there.
type Key = (PeerId, u32);

/// The numbers in use.
#[derive(Debug, Default)]
pub(super) struct PathIds {
    known: HashMap<Key, u32>,
    free: Vec<u32>,
    /// Above this many it is looked for numbers that nothing bears.
    sweep_at: usize,
}

/// Below this many numbers it is not worth looking for unused ones.
const SWEEP_FLOOR: usize = 256;

// === impl PathIds ===

impl PathIds {
    /// The number of a path, a new one if it has none. `live` gives all paths that there are; it
    /// is asked seldom.
    pub fn of(&mut self, key: Key, live: impl FnOnce() -> HashSet<Key>) -> u32 {
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_FLOOR) {
            self.sweep(&live());
        }
        // Numbers are dense: those in use and those that are free are all up to their count.
        let count = self.known.len() + self.free.len();
        let next = || u32::try_from(count).unwrap_or(u32::MAX - 1) + 1;
        let number = self.free.pop().unwrap_or_else(next);
        self.known.insert(key, number);
        number
    }

    fn sweep(&mut self, live: &HashSet<Key>) {
        let free = &mut self.free;
        self.known.retain(|key, number| {
            let stays = live.contains(key);
            if !stays {
                free.push(*number);
            }
            stays
        });
        // The lowest first, whatever the order of the map.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        self.sweep_at = self.known.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_with_ever_new_identifiers_takes_few_numbers() {
        let mut ids = PathIds::default();
        let peer = PeerId(1);
        let lasting = ids.of((PeerId(2), 0), HashSet::new);
        for id in 0..100_000 {
            // Its last hundred paths are there.
            let live = || {
                let last = (id.max(100) - 100..id).map(|id| (peer, id));
                last.chain([(PeerId(2), 0)]).collect()
            };
            let number = ids.of((peer, id), live);
            assert_ne!(number, lasting);
            assert!(number <= 512, "{number}");
        }
        assert_eq!(ids.of((PeerId(2), 0), HashSet::new), lasting);
    }

    #[test]
    fn a_number_is_one_paths_at_a_time() {
        let mut ids = PathIds::default();
        let mut given = HashSet::new();
        for id in 0..1000 {
            let all = || (0..id).map(|id| (PeerId(1), id)).collect();
            assert!(given.insert(ids.of((PeerId(1), id), all)), "twice: {id}");
        }
    }
}
