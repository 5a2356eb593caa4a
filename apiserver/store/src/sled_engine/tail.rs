//! The tail: every change since the last export, in plain files beside the database.
//!
//! The database alone is what makes a write durable; the tail is there to rebuild from, should the
//! database be found damaged. So it is written, after the database was synced and before the write
//! is acknowledged, but not synced: it is complete after the death of the process, and after a
//! power cut it is complete up to a point that its checksums and consecutive revisions prove.
//!
//! A segment is a file of [frames](crate::frame), a change each, named by its first revision.

use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use crate::codec::{Decoder, encode_change};
use crate::engine::Change;
use crate::export::numbered;
use crate::frame;
use crate::revision::Revision;

/// A segment is followed by another from this size on.
const SEGMENT_BYTES: u64 = 4 << 20;

const PREFIX: &str = "tail-";

/// The end that is written to.
#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    segment: Option<Segment>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    bytes: u64,
}

// === impl Tail ===

impl Tail {
    /// A tail in `dir`. What is there already stays; the next change begins a new segment, so that
    /// nothing is ever appended to a segment that may end in half a frame.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            segment: None,
            buffer: Vec::new(),
        }
    }

    /// Appends changes and returns how many bytes they took. After an error the next call begins a
    /// new segment, and what this one was to append is missing.
    pub fn append<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) -> io::Result<u64> {
        self.buffer.clear();
        let mut first = None;
        for change in changes {
            first.get_or_insert(change.revision);
            frame::push(&mut self.buffer, |out| encode_change(change, out));
        }
        let Some(first) = first else { return Ok(0) };
        let bytes = self.buffer.len() as u64;
        let mut segment = match self.segment.take() {
            Some(segment) if segment.bytes < SEGMENT_BYTES => segment,
            _ => Segment {
                file: File::create(segment_path(&self.dir, first))?,
                bytes: 0,
            },
        };
        segment.file.write_all(&self.buffer)?;
        segment.bytes += bytes;
        self.segment = Some(segment);
        Ok(bytes)
    }
}

fn segment_path(dir: &Path, first: Revision) -> PathBuf {
    dir.join(format!("{PREFIX}{:020}", first.0))
}

fn segments(dir: &Path) -> io::Result<Vec<(Revision, PathBuf)>> {
    numbered(dir, |name| name.strip_prefix(PREFIX))
}

/// Whether nothing was ever appended.
pub(super) fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(segments(dir)?.is_empty())
}

/// Follows the changes after `after`, each exactly one revision after the one before, as far as
/// that can be proven, and returns the last revision reached.
pub(super) fn follow(
    dir: &Path,
    after: Revision,
    mut visit: impl FnMut(Change),
) -> io::Result<Revision> {
    let segments = segments(dir)?;
    let mut reached = after;
    for (at, (_, path)) in segments.iter().enumerate() {
        if segments
            .get(at + 1)
            .is_some_and(|(next, _)| *next <= reached.next())
        {
            continue; // all of it is older
        }
        let mut file = BufReader::new(File::open(path)?);
        while let Some(payload) = frame::next(&mut file)? {
            let Ok(change) = Decoder::new(&payload).change() else {
                return Ok(reached);
            };
            if change.revision > reached.next() {
                return Ok(reached);
            }
            if change.revision == reached.next() {
                reached = change.revision;
                visit(change);
            }
        }
    }
    Ok(reached)
}

/// Removes the segments that hold nothing after `kept`.
pub(super) fn prune(dir: &Path, kept: Revision) -> io::Result<()> {
    let segments = segments(dir)?;
    for pair in segments.windows(2) {
        if let [(_, path), (next, _)] = pair
            && *next <= kept.next()
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_millis;
    use crate::engine::Write;
    use crate::key::Key;

    fn change(revision: u64) -> Change {
        let key = Key::new(format!("/core/pods/a/{}", "x".repeat(900))).unwrap();
        let writes = vec![Write::Delete(key)];
        Change {
            revision: Revision(revision),
            time: from_millis(revision),
            writes,
        }
    }

    fn write(dir: &Path, revisions: impl Iterator<Item = u64>) {
        let mut tail = Tail::new(dir);
        for revision in revisions {
            tail.append([change(revision)].iter()).unwrap();
        }
    }

    fn read(dir: &Path, after: u64) -> (u64, Option<u64>, usize) {
        let mut changes = Vec::new();
        let reached = follow(dir, Revision(after), |c| changes.push(c.revision.0)).unwrap();
        (reached.0, changes.first().copied(), changes.len())
    }

    #[test]
    fn what_was_appended_is_followed_over_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1..=6000);
        write(dir.path(), 6001..=6010);
        assert!(segments(dir.path()).unwrap().len() > 2);
        assert_eq!(read(dir.path(), 0), (6010, Some(1), 6010));
        assert_eq!(read(dir.path(), 5999), (6010, Some(6000), 11));
        assert_eq!(read(dir.path(), 6010), (6010, None, 0));
        prune(dir.path(), Revision(6000)).unwrap();
        assert_eq!(segments(dir.path()).unwrap().len(), 1);
        assert_eq!(read(dir.path(), 6000), (6010, Some(6001), 10));
    }

    #[test]
    fn a_gap_ends_what_is_provable_but_a_torn_end_before_a_restart_does_not() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1..=5);
        let torn = segment_path(dir.path(), Revision(1));
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read(dir.path(), 0), (4, Some(1), 4));
        write(dir.path(), 5..=7);
        assert_eq!(read(dir.path(), 0), (7, Some(1), 7));
        fs::remove_file(segment_path(dir.path(), Revision(5))).unwrap();
        write(dir.path(), 6..=7);
        assert_eq!(read(dir.path(), 0), (4, Some(1), 4));
        assert_eq!(read(dir.path(), 5), (7, Some(6), 2));
    }
}
