//! The log of placements: segments on disk, the index in memory, and what keeps both bounded.
//!
//! It must not know why a placement is as it is; that is the recorder's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::index::{Index, Slot};
use super::recorder::Kept;
use super::segment::{self, Line, Writer};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Placements that ended longer ago than this are forgotten, in seconds.
    pub age_seconds: u32,
    /// Most placements; the oldest that ended are forgotten beyond it.
    pub count: usize,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the log of placements in {}: {source}", dir.display())]
pub struct LogError {
    what: &'static str,
    dir: PathBuf,
    source: io::Error,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    limits: Limits,
    index: Index,
    writer: Writer,
    files: BTreeMap<u32, File>,
    /// The segment of the newest change.
    newest: u32,
    seq: u32,
    last_id: u32,
    revision: u64,
    /// The change that each open placement began with.
    born: BTreeMap<u32, u32>,
}

// === impl Default for Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            age_seconds: 7 * 24 * 3600,
            count: 1_000_000,
        }
    }
}

// === impl Log ===

impl Log {
    /// Opens the log in a directory, which is made if it is missing. Reads everything; what was
    /// not written whole at the end is cut off, and damaged lines are left out and told of.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, LogError> {
        Self::read(dir, limits).map_err(|source| LogError {
            what: "open",
            dir: dir.to_owned(),
            source,
        })
    }

    fn read(dir: &Path, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let numbers = segment::list(dir)?;
        let newest = numbers.last().copied();
        let mut index = Index::default();
        let mut files = BTreeMap::new();
        let mut born = BTreeMap::new();
        let (mut seq, mut last_id, mut revision) = (0, 0, 0);
        for &number in &numbers {
            let damage = segment::scan(dir, number, Some(number) == newest, |line, place| {
                index.put(Slot::of(&line, place));
                seq = seq.max(line.seq);
                last_id = last_id.max(line.kept.id);
                revision = revision.max(line.revision);
                match line.kept.spec.to {
                    None => born.insert(line.kept.id, line.born),
                    Some(_) => born.remove(&line.kept.id),
                };
            })?;
            if damage != segment::Damage::default() {
                let file = segment::path(dir, number);
                tracing::warn!(file = %file.display(), cut_bytes = damage.torn,
                    lost_lines = damage.lines, "the log of placements was damaged");
            }
            files.insert(number, File::open(segment::path(dir, number))?);
        }
        let number = newest.unwrap_or(1);
        let writer = Writer::open(dir, number)?;
        files.insert(number, File::open(segment::path(dir, number))?);
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            index,
            writer,
            files,
            newest: number,
            seq,
            last_id,
            revision,
            born,
        })
    }

    /// The newest change.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// The newest id that was given.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// The store's revision up to which everything is in the log, as far as it tells.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The placements without an end.
    pub fn open_placements(&self) -> Result<Vec<Kept>, LogError> {
        let open = self.index.open().map(|slot| Ok(self.line(slot)?.kept));
        open.collect()
    }

    /// Reads a placement.
    pub fn line(&self, slot: &Slot) -> Result<Line, LogError> {
        let file = self.files.get(&slot.place.segment);
        let gone = || io::Error::new(io::ErrorKind::NotFound, "its segment is gone");
        file.ok_or_else(gone)
            .and_then(|file| segment::read(file, slot.place))
            .map_err(|source| self.failed("read", source))
    }

    /// Appends changes, each with the store's revision that led to it, and waits until they are on
    /// disk. When it fails, none of them counts.
    pub fn append(&mut self, changes: Vec<(Kept, u64)>) -> Result<(), LogError> {
        let mut seq = self.seq;
        let lines = changes.into_iter().map(|(kept, revision)| {
            seq += 1;
            let born = self.born.get(&kept.id).copied().unwrap_or(seq);
            if kept.spec.to.is_none() {
                self.born.insert(kept.id, born);
            }
            Line {
                seq,
                born,
                revision,
                kept,
            }
        });
        let lines: Vec<Line> = lines.collect();
        self.write(&lines)?;
        self.newest = self.writer.number();
        self.seq = seq;
        for line in lines {
            self.last_id = self.last_id.max(line.kept.id);
            self.revision = self.revision.max(line.revision);
            if line.kept.spec.to.is_some() {
                self.born.remove(&line.kept.id);
            }
        }
        Ok(())
    }

    fn write(&mut self, lines: &[Line]) -> Result<(), LogError> {
        let encoded: Result<Vec<Vec<u8>>, _> = lines.iter().map(segment::encode).collect();
        let encoded = encoded.map_err(|fault| self.failed("write to", fault.into()))?;
        self.rotate()
            .map_err(|fault| self.failed("write to", fault))?;
        let places = self.writer.append(&encoded);
        let places = places.map_err(|fault| self.failed("write to", fault))?;
        for (line, place) in lines.iter().zip(places) {
            self.index.put(Slot::of(line, place));
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.writer.is_full() {
            let number = self.writer.number() + 1;
            self.writer = Writer::open(&self.dir, number)?;
            let file = File::open(segment::path(&self.dir, number))?;
            self.files.insert(number, file);
        }
        Ok(())
    }

    /// Forgets what is too old or too much, and gives the disk back: segments with little left in
    /// them are removed, after what is left was written again.
    pub fn retire(&mut self, now: u32) -> Result<(), LogError> {
        let before = now.saturating_sub(self.limits.age_seconds);
        self.index.retire(before, self.limits.count);
        let numbers: Vec<u32> = self.files.keys().copied().collect();
        for number in numbers {
            // The newest line stays where it is: it holds the counters.
            if number >= self.newest {
                break;
            }
            let left = self.index.in_segment(number);
            let bytes: u64 = left.iter().map(|slot| u64::from(slot.place.len)).sum();
            // From the oldest on only: an end must not go before its beginning, or the placement
            // would be open again after a restart.
            if bytes * 4 > segment::SEGMENT_BYTES {
                break;
            }
            let lines: Result<Vec<Line>, LogError> =
                left.iter().map(|slot| self.line(slot)).collect();
            // The same changes again: they keep their place in the order.
            self.write(&lines?)?;
            self.files.remove(&number);
            let path = segment::path(&self.dir, number);
            fs::remove_file(path).map_err(|fault| self.failed("shrink", fault))?;
        }
        Ok(())
    }

    /// How many bytes the segments have.
    pub fn bytes(&self) -> u64 {
        let sizes = self.files.values().map(|file| file.metadata());
        sizes.filter_map(|data| Some(data.ok()?.len())).sum()
    }

    fn failed(&self, what: &'static str, source: io::Error) -> LogError {
        LogError {
            what,
            dir: self.dir.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placements::index::{Field, Sieve};
    use peapod_api::net::{Departure, PlacementLeaf, PlacementSpec};
    use std::io::Write;

    /// A placement of usual size.
    fn kept(id: u32, to: Option<&str>) -> Kept {
        let leaf = |nth| PlacementLeaf {
            name: format!("leaf-r12-{nth}"),
            interface: Some(format!("eth{nth}")),
        };
        Kept {
            id,
            namespace: "production".into(),
            boot: "1f0c9e7a-5b0c-4b36-9f52-0d9a4e3c8b11".into(),
            controller: "9d3f6e1c-4f61-4c89-8f0b-0d5d5f5c2a10".into(),
            spec: PlacementSpec {
                pod_name: format!("checkout-7c9fd6b5d8-{id:05}"),
                pod_uid: format!("5a1b9e5e-9c7d-4d7f-8a33-{id:012}"),
                workload: "Deployment/checkout".into(),
                node: format!("node-r12-{:02}", id % 16),
                rack: Some("r12".into()),
                leaves: vec![leaf(1), leaf(2)],
                addresses: vec![format!("10.244.{}.{}", id / 250 % 250, id % 250)],
                from: "2026-01-01T00:00:00.123Z".into(),
                to: to.map(str::to_owned),
                end_reason: to.map(|_| Departure::Deleted),
                ..Default::default()
            },
        }
    }

    fn open(dir: &Path) -> Log {
        Log::open(dir, Limits::default()).unwrap()
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.append(vec![(kept(1, None), 7), (kept(2, None), 8)])
            .unwrap();
        log.append(vec![(kept(1, Some("2026-01-02T00:00:00Z")), 9)])
            .unwrap();
        drop(log);
        let log = open(dir.path());
        assert_eq!((log.seq(), log.last_id(), log.revision()), (3, 2, 9));
        assert_eq!(log.open_placements().unwrap(), [kept(2, None)]);
        let line = log.line(log.index().find(1).unwrap()).unwrap();
        assert_eq!((line.born, line.seq), (1, 3));
        let mut sieve = Sieve::new(0, u32::MAX);
        sieve.demand(Field::Ip, "10.244.0.2");
        assert_eq!(log.index().select(&sieve, 0, 9).len(), 1);
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.append(vec![(kept(1, None), 1)]).unwrap();
        let whole = log.bytes();
        log.append(vec![(kept(2, None), 2)]).unwrap();
        let bytes = fs::read(segment::path(dir.path(), 1)).unwrap();
        drop(log);
        for len in (whole as usize..bytes.len()).step_by(7) {
            fs::write(segment::path(dir.path(), 1), &bytes[..len]).unwrap();
            let mut log = open(dir.path());
            assert_eq!(log.last_id(), 1);
            assert_eq!(log.bytes(), whole);
            log.append(vec![(kept(2, None), 2)]).unwrap();
            drop(log);
            assert_eq!(open(dir.path()).last_id(), 2);
        }
    }

    #[test]
    fn a_damaged_line_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.append((1..=3).map(|id| (kept(id, None), 1)).collect())
            .unwrap();
        drop(log);
        let path = segment::path(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let log = open(dir.path());
        assert_eq!(log.index().len(), 2);
        assert!(log.index().find(2).is_none());
    }

    #[test]
    fn memory_and_disk_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            age_seconds: 3600,
            count: 5_000,
        };
        let mut log = Log::open(dir.path(), limits).unwrap();
        let (mut id, rounds) = (0, 60);
        log.append(vec![(kept(1_000_000, None), 1)]).unwrap();
        for _ in 0..rounds {
            let batch = (0..1000).map(|_| {
                id += 1;
                (kept(id, Some("2026-01-01T01:00:00Z")), 1)
            });
            log.append(batch.collect()).unwrap();
            log.retire(0).unwrap();
            assert!(log.index().len() <= limits.count);
        }
        let per_record = log.line(log.index().find(id).unwrap()).unwrap();
        let per_record = segment::encode(&per_record).unwrap().len();
        println!("a placement: 48 bytes of memory, {per_record} bytes of disk a line");
        assert!(per_record < 700);
        assert!(log.bytes() < 3 * segment::SEGMENT_BYTES, "{}", log.bytes());
        assert!(log.index().find(1_000_000).is_some(), "open ones stay");
        log.retire(super::super::index::seconds("2026-01-02T00:00:00Z"))
            .unwrap();
        assert_eq!(log.index().len(), 1, "the rest is too old");
        drop(log);
        let log = Log::open(dir.path(), limits).unwrap();
        assert_eq!(log.open_placements().unwrap(), [kept(1_000_000, None)]);
    }
}
