//! Reading the whole database back, and proving that it is whole. Pure: rows in, content out.
//!
//! Beside each row's checksum it is verified that after the floor every revision is there with all
//! of its writes, that the last one is the newest that the database claims, and that as many keys
//! are present as it claims. A database that lost something without noticing does not pass.

use std::collections::HashMap;

use super::garbage::Garbage;
use super::rows::{Meta, Place, Row};
use crate::codec::Malformed;
use crate::engine::{Change, Loaded, Record, Write};
use crate::key::Key;
use crate::ledger::Ledger;
use crate::revision::Revision;

/// What a database holds.
#[derive(Debug)]
pub(super) struct Scan {
    pub meta: Meta,
    /// For the store's memory.
    pub loaded: Loaded,
    /// For going on.
    pub ledger: Ledger,
    pub garbage: Garbage,
}

/// Takes rows in their order.
#[derive(Debug)]
pub(super) struct Scanner {
    meta: Meta,
    base: HashMap<Key, Record>,
    recent: Vec<Change>,
    /// How many writes the last of `recent` is to have.
    expected_writes: usize,
    ledger: Ledger,
    garbage: Garbage,
}

// === impl Scanner ===

impl Scanner {
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            base: HashMap::new(),
            recent: Vec::new(),
            expected_writes: 0,
            ledger: Ledger::at(meta.floor),
            garbage: Garbage::default(),
        }
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// [`Malformed`] when something is missing before it, or it should not be there.
    pub fn row(&mut self, place: Place, row: Row) -> Result<(), Malformed> {
        if place.revision > self.meta.head {
            return Err(Malformed("it is newer than the newest revision"));
        }
        let replaced = self.ledger.learn(&row.write, place.index);
        self.garbage
            .note_write(place.revision, place.index, &row.write, replaced);
        if place.revision <= self.meta.floor {
            match row.write {
                Write::Put(record) => self.base.insert(record.key.clone(), record),
                Write::Delete(key) => self.base.remove(&key),
            };
            return Ok(());
        }
        self.recent_row(place, row)
    }

    fn recent_row(&mut self, place: Place, row: Row) -> Result<(), Malformed> {
        if place.revision > self.reached() {
            self.whole_so_far()?;
            if place.revision != self.reached().next() {
                return Err(Malformed("revisions before it are missing"));
            }
            self.expected_writes = usize::from(row.writes);
            let (revision, time) = (place.revision, row.time);
            self.recent.push(Change {
                revision,
                time,
                writes: Vec::new(),
            });
        }
        match self.recent.last_mut() {
            Some(change) if change.writes.len() == usize::from(place.index) => {
                self.ledger.advance(place.revision, row.time);
                change.writes.push(row.write);
                Ok(())
            }
            _ => Err(Malformed("writes of its transaction are missing")),
        }
    }

    fn reached(&self) -> Revision {
        self.recent
            .last()
            .map_or(self.meta.floor, |change| change.revision)
    }

    fn whole_so_far(&self) -> Result<(), Malformed> {
        let writes = self.recent.last().map_or(0, |change| change.writes.len());
        if writes == self.expected_writes {
            Ok(())
        } else {
            Err(Malformed("the end of a transaction is missing"))
        }
    }

    /// The content, once every row was taken.
    ///
    /// # Errors
    /// [`Malformed`] when rows are missing.
    pub fn finish(self) -> Result<Scan, Malformed> {
        self.whole_so_far()?;
        if self.reached() != self.meta.head {
            return Err(Malformed("the newest revisions are missing"));
        }
        if self.ledger.len() as u64 != self.meta.live {
            return Err(Malformed("keys are missing, or back that were deleted"));
        }
        let loaded = Loaded {
            floor: self.meta.floor,
            base: self.base.into_values().collect(),
            recent: self.recent,
            revision: self.meta.head,
        };
        Ok(Scan {
            meta: self.meta,
            loaded,
            ledger: self.ledger,
            garbage: self.garbage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_millis;

    fn key(name: &str) -> Key {
        Key::new(format!("/core/pods/a/{name}")).unwrap()
    }

    fn put(name: &str, at: u64) -> Write {
        Write::Put(Record {
            key: key(name),
            value: "v".into(),
            revision_at: None,
            created: Revision(at),
            modified: Revision(at),
        })
    }

    fn delete(name: &str, _at: u64) -> Write {
        Write::Delete(key(name))
    }

    /// A row: its revision, its index, the writes of its transaction, itself.
    type Line<'a> = (u64, u16, u16, fn(&str, u64) -> Write, &'a str);

    /// Scans rows under a meta of head, floor and number of keys.
    fn scan((head, floor, live): (u64, u64, u64), rows: &[Line<'_>]) -> Result<Scan, &'static str> {
        let mut scanner = Scanner::new(Meta {
            head: Revision(head),
            floor: Revision(floor),
            live,
        });
        for &(at, index, writes, write, name) in rows {
            let place = Place {
                revision: Revision(at),
                index,
            };
            let row = Row {
                write: write(name, at),
                time: from_millis(at),
                writes,
            };
            scanner.row(place, row).map_err(|malformed| malformed.0)?;
        }
        scanner.finish().map_err(|malformed| malformed.0)
    }

    #[test]
    fn a_whole_database_gives_its_base_and_its_recent_changes() {
        let rows = [
            (1, 0, 1, put as fn(&str, u64) -> Write, "a"),
            (3, 0, 1, put, "b"),
            (5, 0, 2, put, "a"),
            (5, 1, 2, delete, "b"),
            (6, 0, 1, put, "c"),
        ];
        let scan = scan((6, 4, 2), &rows).unwrap();
        let mut base: Vec<&str> = scan.loaded.base.iter().map(|r| r.key.name()).collect();
        base.sort_unstable();
        assert_eq!(base, ["a", "b"]);
        let recent: Vec<(u64, usize)> = scan
            .loaded
            .recent
            .iter()
            .map(|c| (c.revision.0, c.writes.len()))
            .collect();
        assert_eq!(recent, [(5, 2), (6, 1)]);
        assert_eq!((scan.ledger.head(), scan.ledger.len()), (Revision(6), 2));
        let mut garbage = scan.garbage;
        let dead = garbage.take(Revision(6), 100);
        let dead: Vec<(u64, u64)> = dead
            .iter()
            .map(|d| (d.since.0, d.place.revision.0))
            .collect();
        assert_eq!(dead, [(5, 1), (5, 3), (5, 5)]);
    }

    #[test]
    fn an_empty_database_is_whole() {
        assert_eq!(scan((0, 0, 0), &[]).unwrap().loaded.revision, Revision(0));
        assert_eq!(scan((9, 9, 0), &[]).unwrap().ledger.head(), Revision(9));
    }

    #[test]
    fn whatever_is_missing_is_noticed() {
        let put = put as fn(&str, u64) -> Write;
        let a = (1, 0, 1, put, "a");
        let (b1, b2) = ((2, 0, 2, put, "b"), (2, 1, 2, put, "c"));
        let d = (3, 0, 1, put, "d");
        let meta = (3, 0, 4);
        assert!(scan(meta, &[a, b1, b2, d]).is_ok());
        for (rows, why) in [
            (vec![b1, b2, d], "revisions before it are missing"),
            (vec![a, d], "revisions before it are missing"),
            (vec![a, b1, d], "the end of a transaction is missing"),
            (vec![a, b2, d], "writes of its transaction are missing"),
            (vec![a, b1, b2], "the newest revisions are missing"),
            (vec![a, b1], "the end of a transaction is missing"),
            (
                vec![a, b1, b2, d, (4, 0, 1, put, "e")],
                "it is newer than the newest revision",
            ),
        ] {
            assert_eq!(scan(meta, &rows).unwrap_err(), why);
        }
        let lost = "keys are missing, or back that were deleted";
        assert_eq!(scan((3, 3, 5), &[a, b1, b2, d]).unwrap_err(), lost);
    }
}
