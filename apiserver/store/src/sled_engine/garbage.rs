//! Which rows of the database are superseded, and when they may go. Pure.

use std::collections::VecDeque;

use super::rows::{Place, parts_of};
use crate::engine::{Change, Write};
use crate::ledger::Slot;
use crate::revision::Revision;

/// Superseded writes, in the order in which they were superseded.
///
/// That order is also the one in which they may be removed: a deletion goes after the put that it
/// hides, so that at no point an old value comes back.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    rows: VecDeque<Dead>,
}

/// A write that nobody can read once the history begins at `since` or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dead {
    pub since: Revision,
    pub place: Place,
    pub parts: u16,
}

// === impl Garbage ===

impl Garbage {
    /// Notes a dead write, no older than those before it.
    fn push(&mut self, dead: Dead) {
        self.rows.push_back(dead);
    }

    /// Notes what `change` superseded, given what each of its writes replaced.
    pub fn note(&mut self, change: &Change, replaced: &[Option<Slot>]) {
        for (index, (write, replaced)) in change.writes.iter().zip(replaced).enumerate() {
            self.note_write(change.revision, index as u16, write, *replaced); // at most MAX_OPS
        }
    }

    /// Notes what one write superseded.
    pub fn note_write(
        &mut self,
        since: Revision,
        index: u16,
        write: &Write,
        replaced: Option<Slot>,
    ) {
        if let Some(slot) = replaced {
            let place = Place {
                revision: slot.modified,
                index: slot.index,
            };
            let parts = parts_of(write.key(), slot.size as usize);
            self.push(Dead {
                since,
                place,
                parts,
            });
        }
        if let Write::Delete(_) = write {
            let place = Place {
                revision: since,
                index,
            };
            self.push(Dead {
                since,
                place,
                parts: 1,
            });
        }
    }

    /// Takes writes that may go with the history beginning at `floor`, up to about `max_parts`
    /// rows of them.
    pub fn take(&mut self, floor: Revision, max_parts: usize) -> Vec<Dead> {
        let mut taken = Vec::new();
        let mut parts = 0;
        while parts < max_parts
            && let Some(dead) = self.rows.front().filter(|dead| dead.since <= floor)
        {
            parts += usize::from(dead.parts);
            taken.push(*dead);
            self.rows.pop_front();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_floor_goes_and_in_order() {
        let dead = |since, revision, parts| Dead {
            since: Revision(since),
            place: Place {
                revision: Revision(revision),
                index: 0,
            },
            parts,
        };
        let all = [dead(3, 1, 1), dead(4, 3, 5), dead(4, 4, 1), dead(9, 2, 1)];
        let mut garbage = Garbage::default();
        all.iter().for_each(|row| garbage.push(*row));
        assert_eq!(garbage.take(Revision(2), 100), []);
        assert_eq!(garbage.take(Revision(8), 3), all[..2]);
        assert_eq!(garbage.take(Revision(8), 3), all[2..3]);
        assert_eq!(garbage.take(Revision(9), 3), all[3..]);
    }
}
