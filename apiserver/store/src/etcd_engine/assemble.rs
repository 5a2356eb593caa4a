//! From etcd's events to whole changes. Pure: events go in, in order; a change comes out when its
//! last event is in.

use std::sync::Arc;
use std::time::SystemTime;

use super::layout::{Name, Names, decode};
use crate::codec::from_millis;
use crate::engine::{Change, Write};
use crate::revision::Revision;

/// One event of etcd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'e> {
    pub key: &'e [u8],
    /// The value that was put; `None` for a deletion.
    pub value: Option<&'e [u8]>,
    pub created: Revision,
    pub modified: Revision,
}

/// The events of the transaction that is not whole yet.
#[derive(Debug)]
pub(super) struct Assembly {
    names: Names,
    writes: Vec<Write>,
    /// The revision of the last whole change.
    last: Revision,
    /// Its time: times never go back.
    time: SystemTime,
}

// === impl Assembly ===

impl Assembly {
    /// Begins after the change at `last`.
    pub fn after(names: Names, last: Revision) -> Self {
        Self {
            names,
            writes: Vec::new(),
            last,
            time: SystemTime::UNIX_EPOCH,
        }
    }

    /// The revision of the last whole change: where to go on after an interruption.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Forgets the transaction that is not whole: its events will come again.
    pub fn interrupted(&mut self) {
        self.writes.clear();
    }

    /// Nothing of this store happened up to `revision`.
    pub fn skip_to(&mut self, revision: Revision) {
        self.last = self.last.max(revision);
    }

    /// Takes an event in.
    pub fn take(&mut self, event: Raw<'_>) -> Option<Arc<Change>> {
        match self.names.parse(event.key) {
            Name::Other => None,
            Name::Entry(key) => {
                let write = match event.value {
                    None => Some(Write::Delete(key)),
                    Some(kept) => {
                        let record = decode(key.clone(), kept, event.created, event.modified);
                        if record.is_none() {
                            tracing::error!(%key, "etcd holds what is no entry there; it is left out");
                        }
                        record.map(Write::Put)
                    }
                };
                self.writes.extend(write);
                None
            }
            Name::Head => {
                self.last = event.modified;
                let millis = event.value.and_then(decimal).unwrap_or(0);
                self.time = self.time.max(from_millis(millis));
                Some(Arc::new(Change {
                    revision: event.modified,
                    time: self.time,
                    writes: std::mem::take(&mut self.writes),
                }))
            }
        }
    }
}

/// A decimal number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::txn::Draft;

    fn names() -> Names {
        Names::new("/p")
    }

    fn event<'e>(key: &'e str, value: Option<&'e [u8]>, modified: u64) -> Raw<'e> {
        Raw {
            key: key.as_bytes(),
            value,
            created: Revision(1),
            modified: Revision(modified),
        }
    }

    #[test]
    fn a_change_is_whole_at_its_head() {
        let mut assembly = Assembly::after(names(), Revision(4));
        let kept = super::super::layout::encode(&Draft::new("rv=", 3));
        assert!(
            assembly
                .take(event("/p/o/core/pods/a/x", Some(&kept), 5))
                .is_none()
        );
        assert!(
            assembly
                .take(event("/p/o/core/pods/a/y", None, 5))
                .is_none()
        );
        assert!(
            assembly
                .take(event("/p/compacted", Some(b"3"), 5))
                .is_none()
        );
        assert_eq!(assembly.last(), Revision(4));
        let change = assembly.take(event("/p/head", Some(b"1000"), 5)).unwrap();
        assert_eq!(
            (change.revision, change.time),
            (Revision(5), from_millis(1000))
        );
        let Write::Put(record) = &change.writes[0] else {
            panic!("no put")
        };
        assert_eq!(record.value, "rv=5");
        let deleted = Write::Delete(Key::new("/core/pods/a/y").unwrap());
        assert_eq!(change.writes[1..], [deleted]);
        // A clock that goes back.
        let change = assembly.take(event("/p/head", Some(b"900"), 6)).unwrap();
        assert_eq!((change.time, change.writes.len()), (from_millis(1000), 0));
    }

    #[test]
    fn what_was_interrupted_comes_again() {
        let mut assembly = Assembly::after(names(), Revision(4));
        let gone = event("/p/o/core/pods/a/y", None, 5);
        assert!(assembly.take(gone).is_none());
        assembly.interrupted();
        assert!(assembly.take(gone).is_none());
        let change = assembly.take(event("/p/head", Some(b"1"), 5)).unwrap();
        assert_eq!(change.writes.len(), 1);
        assembly.skip_to(Revision(9));
        assert_eq!(assembly.last(), Revision(9));
    }
}
