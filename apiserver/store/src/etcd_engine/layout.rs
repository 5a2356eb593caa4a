//! What lies where in etcd, and how a value is spelt there.
//!
//! ```text
//! PREFIX/version        the layout's version, in decimal: 2; `restoring` while a backup is restored
//! PREFIX/offset         what is added to etcd's revisions to have this store's, in decimal
//! PREFIX/head           written last in every transaction: its time, in decimal ms since 1970
//! PREFIX/compacted      the revision up to which the past was given up, in decimal
//! PREFIX/o/GROUP/RESOURCE/NAMESPACE/NAME   an entry: revision_at u32 LE (all ones: none) | value
//! ```
//!
//! An entry's value is kept without its revision, which follows from etcd's `mod_revision` and is known only
//! afterwards: who reads it puts it in. `head` ends every transaction's events, so that a reader knows
//! where one is whole; its `mod_revision` is the newest revision of this store, whatever else the
//! etcd holds; and it gives deletions a time.

use bytes::Bytes;

use crate::engine::Record;
use crate::key::Key;
use crate::revision::Revision;
use crate::txn::{Draft, MAX_VALUE_BYTES};

/// The version of the layout that this code reads and writes.
pub(super) const VERSION: u32 = 2;

/// The version of a store into which a backup is being restored: not one that may be opened.
pub(super) const RESTORING: &str = "restoring";

const NO_PLACE: u32 = u32::MAX;

/// How this store's revisions follow from etcd's. In an etcd of its own a store that was restored from a
/// backup goes on above the backup's revisions, as its clients expect, where etcd has just begun to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clock {
    /// What is added to etcd's revisions.
    pub ahead: u64,
}

/// Where a store is in etcd, and in its time.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub names: Names,
    pub clock: Clock,
}

/// The names of the keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    entries: String,
}

/// Which of the keys under the prefix one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// An entry's.
    Entry(Key),
    /// The end of a transaction.
    Head,
    /// Something that is no part of the content.
    Other,
}

// === impl Clock ===

impl Clock {
    /// The revision that etcd numbers so. etcd counts from 1, with a sign; 0 stands for none.
    pub fn of(self, number: i64) -> Revision {
        match u64::try_from(number) {
            Ok(number) if number > 0 => Revision(number + self.ahead),
            _ => Revision::ZERO,
        }
    }

    /// etcd's number of a revision; one that etcd never gives for what is before its time.
    pub fn number(self, revision: Revision) -> i64 {
        let number = revision.0.checked_sub(self.ahead);
        let number = number.and_then(|number| i64::try_from(number).ok());
        number.filter(|number| *number > 0).unwrap_or(-1)
    }
}

// === impl Names ===

impl Names {
    /// The names under `prefix`; slashes at its end do not count.
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self {
            entries: format!("{prefix}/o"),
            prefix,
        }
    }

    /// Everything's range: first and end.
    pub fn all(&self) -> (String, String) {
        (format!("{}/", self.prefix), format!("{}0", self.prefix))
    }

    /// The entries' range: first and end.
    pub fn entries(&self) -> (String, String) {
        (format!("{}/", self.entries), format!("{}0", self.entries))
    }

    pub fn entry(&self, key: &Key) -> String {
        format!("{}{key}", self.entries)
    }

    pub fn head(&self) -> String {
        format!("{}/head", self.prefix)
    }

    pub fn offset(&self) -> String {
        format!("{}/offset", self.prefix)
    }

    pub fn version(&self) -> String {
        format!("{}/version", self.prefix)
    }

    pub fn compacted(&self) -> String {
        format!("{}/compacted", self.prefix)
    }

    /// Which key `name` is. What is no key of ours counts as no part of the content.
    pub fn parse(&self, name: &[u8]) -> Name {
        let Ok(name) = std::str::from_utf8(name) else {
            return Name::Other;
        };
        match name.strip_prefix(&*self.prefix) {
            Some("/head") => Name::Head,
            Some(rest) => match rest.strip_prefix("/o").map(Key::new) {
                Some(Ok(key)) => Name::Entry(key),
                _ => Name::Other,
            },
            None => Name::Other,
        }
    }
}

/// A draft as it is kept.
pub(super) fn encode(draft: &Draft) -> Vec<u8> {
    let place = draft.revision_at().unwrap_or(NO_PLACE);
    let mut out = Vec::with_capacity(4 + draft.bytes().len());
    out.extend_from_slice(&place.to_le_bytes());
    out.extend_from_slice(draft.bytes());
    out
}

/// What is kept at `key`, with its revision put in; `None` when the bytes are no entry.
pub(super) fn decode(
    key: Key,
    kept: &[u8],
    created: Revision,
    modified: Revision,
) -> Option<Record> {
    let (place, value) = kept.split_first_chunk()?;
    let place = u32::from_le_bytes(*place);
    if value.len() > MAX_VALUE_BYTES || (place != NO_PLACE && place as usize > value.len()) {
        return None;
    }
    let value = Bytes::copy_from_slice(value);
    let draft = match place {
        NO_PLACE => Draft::plain(value),
        place => Draft::new(value, place),
    };
    Some(Record {
        key,
        value: draft.finish(modified),
        revision_at: draft.revision_at(),
        created,
        modified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let names = Names::new("/registry/peapod/");
        let key = Key::new("/core/pods/a/x").unwrap();
        assert_eq!(names.entry(&key), "/registry/peapod/o/core/pods/a/x");
        for (name, is) in [
            (names.entry(&key), Name::Entry(key)),
            (names.head(), Name::Head),
            (names.version(), Name::Other),
            (names.compacted(), Name::Other),
            ("/registry/peapod/o/core".to_owned(), Name::Other),
            ("/registry/peapods/head".to_owned(), Name::Other),
        ] {
            assert_eq!(names.parse(name.as_bytes()), is, "{name}");
            let (first, end) = names.all();
            let inside = (first..end).contains(&name);
            assert_eq!(inside, name.starts_with("/registry/peapod/"), "{name}");
        }
        assert_eq!(names.parse(&[0xff]), Name::Other);
    }

    #[test]
    fn revisions_are_etcds_moved_ahead() {
        let (plain, ahead) = (Clock::default(), Clock { ahead: 1000 });
        assert_eq!((plain.of(7), plain.number(Revision(7))), (Revision(7), 7));
        assert_eq!(
            (ahead.of(7), ahead.number(Revision(1007))),
            (Revision(1007), 7)
        );
        for before in [0, 7, 1000, u64::MAX] {
            assert_eq!(ahead.number(Revision(before)), -1, "{before}");
        }
        assert_eq!(
            (ahead.of(0), ahead.of(-1)),
            (Revision::ZERO, Revision::ZERO)
        );
    }

    #[test]
    fn an_entry_gets_its_revision_when_it_is_read() {
        let key = Key::new("/core/pods/a/x").unwrap();
        let read = |draft: &Draft| {
            let kept = encode(draft);
            decode(key.clone(), &kept, Revision(3), Revision(42)).unwrap()
        };
        let record = read(&Draft::new("rv=;", 3));
        assert_eq!(
            (&record.value[..], record.revision_at),
            (&b"rv=42;"[..], Some(3))
        );
        assert_eq!(
            (record.created, record.modified),
            (Revision(3), Revision(42))
        );
        assert_eq!(read(&Draft::plain("v")).value, "v");
    }

    #[test]
    fn bytes_that_are_no_entry_are_none() {
        let key = Key::new("/core/pods/a/x").unwrap();
        for kept in [&b""[..], b"abc", &[5, 0, 0, 0, b'v']] {
            assert_eq!(decode(key.clone(), kept, Revision(1), Revision(1)), None);
        }
    }
}
