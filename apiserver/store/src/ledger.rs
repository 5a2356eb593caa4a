//! The decision of an embedded engine, without its IO: which transaction happens, and at which
//! revision.
//!
//! The ledger knows the revision of every key but no values. It is deterministic: transactions and
//! the time go in, changes come out. What it decided must then be made durable in the same order;
//! if that fails the ledger is ahead of the disk and must be thrown away.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::engine::{Change, Record, Refusal, Write};
use crate::key::Key;
use crate::revision::Revision;
use crate::txn::{Action, Compare, Draft, Txn};

/// What the ledger knows of a present key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// When the key came to be.
    pub created: Revision,
    /// When its value was written.
    pub modified: Revision,
    /// Which of that revision's writes it was.
    pub index: u16,
    /// The size of its value, in bytes.
    pub size: u32,
}

/// A transaction that happens.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What it does.
    pub change: Change,
    /// For each of its writes, what it replaces.
    pub replaced: Vec<Option<Slot>>,
}

/// The revision of the store and of every key in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    head: Revision,
    /// The time of the newest change: times, like revisions, never go back.
    time: SystemTime,
    slots: HashMap<Key, Slot>,
}

// === impl Ledger ===

impl Ledger {
    /// A ledger of no keys whose next change follows `head`.
    pub fn at(head: Revision) -> Self {
        Self {
            head,
            time: SystemTime::UNIX_EPOCH,
            slots: HashMap::new(),
        }
    }

    /// The newest revision that was given.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// How many keys are present.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes over a write that was decided earlier, by whoever: the past, being loaded. Returns
    /// what it replaces.
    pub fn learn(&mut self, write: &Write, index: u16) -> Option<Slot> {
        match write {
            Write::Put(record) => {
                self.head = self.head.max(record.modified);
                self.slots
                    .insert(record.key.clone(), Slot::of(record, index))
            }
            Write::Delete(key) => self.slots.remove(key),
        }
    }

    /// Moves counter and clock on to where the past ended.
    pub fn advance(&mut self, head: Revision, time: SystemTime) {
        self.head = self.head.max(head);
        self.time = self.time.max(time);
    }

    /// Decides `txn`, which must be valid, and remembers the outcome.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] when a comparison does not hold; then nothing has changed.
    pub fn decide(&mut self, txn: &Txn, time: SystemTime) -> Result<Decision, Refusal> {
        if let Some(op) = txn.ops.iter().find(|op| !self.holds(&op.key, op.compare)) {
            return Err(Refusal::Conflict {
                key: op.key.clone(),
                at: self.head,
            });
        }
        let revision = self.head.next();
        self.time = self.time.max(time);
        let mut change = Change {
            revision,
            time: self.time,
            writes: Vec::with_capacity(txn.ops.len()),
        };
        let mut replaced = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            let write = match &op.action {
                Action::Put(draft) => Write::Put(self.record(&op.key, draft, revision)),
                Action::Delete if self.slots.contains_key(&op.key) => Write::Delete(op.key.clone()),
                Action::Delete | Action::Check => continue,
            };
            replaced.push(self.learn(&write, change.writes.len() as u16));
            change.writes.push(write);
        }
        if change.writes.is_empty() {
            change.revision = self.head;
        } else {
            self.head = revision;
        }
        Ok(Decision { change, replaced })
    }

    fn holds(&self, key: &Key, compare: Compare) -> bool {
        match compare {
            Compare::Any => true,
            Compare::Absent => !self.slots.contains_key(key),
            Compare::Present => self.slots.contains_key(key),
            Compare::At(revision) => self
                .slots
                .get(key)
                .is_some_and(|slot| slot.modified == revision),
        }
    }

    fn record(&self, key: &Key, draft: &Draft, revision: Revision) -> Record {
        Record {
            key: key.clone(),
            value: draft.finish(revision),
            revision_at: draft.revision_at(),
            created: self.slots.get(key).map_or(revision, |slot| slot.created),
            modified: revision,
        }
    }
}

// === impl Slot ===

impl Slot {
    fn of(record: &Record, index: u16) -> Self {
        Self {
            created: record.created,
            modified: record.modified,
            index,
            // Values are bounded by MAX_VALUE_BYTES, far below 4 GiB.
            size: record.value.len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(format!("/core/pods/default/{name}")).unwrap()
    }

    fn draft() -> Draft {
        Draft::new("v", 1)
    }

    fn decide(ledger: &mut Ledger, txn: Txn) -> Result<(u64, Vec<String>), Refusal> {
        let change = ledger.decide(&txn, SystemTime::UNIX_EPOCH)?.change;
        let shown = change.writes.iter().map(|write| match write {
            Write::Put(r) => format!("{} {:?} created {}", r.key.name(), r.value, r.created),
            Write::Delete(key) => format!("{} deleted", key.name()),
        });
        Ok((change.revision.0, shown.collect()))
    }

    #[test]
    fn one_revision_for_all_writes_of_a_transaction() {
        let mut ledger = Ledger::at(Revision::ZERO);
        let both = Txn::new().put(key("a"), Compare::Absent, draft()).put(
            key("b"),
            Compare::Absent,
            draft(),
        );
        let written = vec![
            "a b\"v1\" created 1".to_owned(),
            "b b\"v1\" created 1".to_owned(),
        ];
        assert_eq!(decide(&mut ledger, both), Ok((1, written)));
        let update = Txn::new().put(key("a"), Compare::At(Revision(1)), draft());
        assert_eq!(
            decide(&mut ledger, update),
            Ok((2, vec!["a b\"v2\" created 1".to_owned()]))
        );
    }

    #[test]
    fn a_failed_comparison_changes_nothing() {
        let mut ledger = Ledger::at(Revision::ZERO);
        decide(&mut ledger, Txn::new().put(key("a"), Compare::Any, draft())).unwrap();
        for compare in [Compare::Absent, Compare::At(Revision(7))] {
            let txn = Txn::new()
                .put(key("b"), Compare::Absent, draft())
                .check(key("a"), compare);
            let conflict = Refusal::Conflict {
                key: key("a"),
                at: Revision(1),
            };
            assert_eq!(decide(&mut ledger, txn), Err(conflict));
        }
        assert_eq!(ledger.head(), Revision(1));
        let txn = Txn::new().check(key("b"), Compare::Present);
        assert!(decide(&mut ledger, txn).is_err());
    }

    #[test]
    fn what_changes_nothing_takes_no_revision() {
        let mut ledger = Ledger::at(Revision(9));
        let txn = Txn::new()
            .delete(key("a"), Compare::Any)
            .check(key("b"), Compare::Absent);
        assert_eq!(decide(&mut ledger, txn), Ok((9, vec![])));
    }

    #[test]
    fn what_comes_back_is_created_anew() {
        let mut ledger = Ledger::at(Revision::ZERO);
        let put = || Txn::new().put(key("a"), Compare::Absent, draft());
        decide(&mut ledger, put()).unwrap();
        let gone = Txn::new().delete(key("a"), Compare::At(Revision(1)));
        assert_eq!(
            decide(&mut ledger, gone),
            Ok((2, vec!["a deleted".to_owned()]))
        );
        assert_eq!(
            decide(&mut ledger, put()),
            Ok((3, vec!["a b\"v3\" created 3".to_owned()]))
        );
    }
}
