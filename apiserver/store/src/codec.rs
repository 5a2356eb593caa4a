//! How a write is spelt in bytes, wherever it is kept: in the database, the tail and exports.
//!
//! ```text
//! kind u8 (1 put, 2 delete) | created u64 | revision_at u32 (all ones: none)
//!   | key length u16 | value length u32 | key | value
//! ```
//!
//! Numbers are little-endian. The revision that wrote it stands outside, with what groups writes to
//! changes. Decoding trusts nothing: damaged bytes give an error, not a panic.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;

use crate::engine::{Change, Record, Write};
use crate::key::Key;
use crate::revision::Revision;
use crate::txn::{MAX_OPS, MAX_VALUE_BYTES};

/// The bytes of a write before its key.
const HEAD_BYTES: usize = 1 + 8 + 4 + 2 + 4;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const NO_PLACE: u32 = u32::MAX;

/// Bytes that are no write, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a valid record: {0}")]
pub(crate) struct Malformed(pub &'static str);

/// How many bytes a put of a value of `value_bytes` takes.
pub(crate) fn put_bytes(key: &Key, value_bytes: usize) -> usize {
    HEAD_BYTES + key.as_str().len() + value_bytes
}

/// Appends `write` to `out`.
pub(crate) fn encode_write(write: &Write, out: &mut Vec<u8>) {
    let (kind, created, place, value): (_, _, _, &[u8]) = match write {
        Write::Put(r) => (PUT, r.created, r.revision_at.unwrap_or(NO_PLACE), &r.value),
        Write::Delete(_) => (DELETE, Revision::ZERO, NO_PLACE, &[]),
    };
    let key = write.key().as_str().as_bytes();
    out.reserve(HEAD_BYTES + key.len() + value.len());
    out.push(kind);
    out.extend_from_slice(&created.0.to_le_bytes());
    out.extend_from_slice(&place.to_le_bytes());
    // Both lengths are bounded, by MAX_KEY_BYTES and MAX_VALUE_BYTES with a few digits.
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// Appends a whole change to `out`: revision, time, the number of writes, the writes.
pub(crate) fn encode_change(change: &Change, out: &mut Vec<u8>) {
    out.extend_from_slice(&change.revision.0.to_le_bytes());
    out.extend_from_slice(&millis(change.time).to_le_bytes());
    out.extend_from_slice(&(change.writes.len() as u16).to_le_bytes());
    change
        .writes
        .iter()
        .for_each(|write| encode_write(write, out));
}

/// Reads what the encoders wrote.
#[derive(Debug)]
pub(crate) struct Decoder<'b> {
    rest: &'b [u8],
}

// === impl Decoder ===

impl<'b> Decoder<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// One write of the change at `revision`.
    pub fn write(&mut self, revision: Revision) -> Result<Write, Malformed> {
        let [kind] = self.array()?;
        let created = Revision(self.u64()?);
        let place = self.u32()?;
        let key_len = usize::from(self.u16()?);
        let value_len = self.u32()? as usize;
        if value_len > MAX_VALUE_BYTES + 20 {
            return Err(Malformed("its value is too long"));
        }
        let key = std::str::from_utf8(self.take(key_len)?).map_err(|_| Malformed("its key"))?;
        let key = Key::new(Arc::from(key)).map_err(|_| Malformed("its key"))?;
        let value = self.take(value_len)?;
        match kind {
            PUT => Ok(Write::Put(Record {
                key,
                value: Bytes::copy_from_slice(value),
                revision_at: (place != NO_PLACE).then_some(place),
                created,
                modified: revision,
            })),
            DELETE => Ok(Write::Delete(key)),
            _ => Err(Malformed("its kind is unknown")),
        }
    }

    /// A whole change.
    pub fn change(&mut self) -> Result<Change, Malformed> {
        let revision = Revision(self.u64()?);
        let time = from_millis(self.u64()?);
        let count = usize::from(self.u16()?);
        if count > MAX_OPS {
            return Err(Malformed("it has too many writes"));
        }
        let writes = (0..count)
            .map(|_| self.write(revision))
            .collect::<Result<_, _>>()?;
        Ok(Change {
            revision,
            time,
            writes,
        })
    }

    /// That everything was read.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("it is followed by more"))
        }
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Malformed("it is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Milliseconds since 1970; a clock before that counts as 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn from_millis(millis: u64) -> SystemTime {
    let since = Duration::from_millis(millis);
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> Change {
        let key = |name: &str| Key::new(format!("/core/pods/default/{name}")).unwrap();
        let record = Record {
            key: key("a"),
            value: "on=n1 rv=7".into(),
            revision_at: Some(9),
            created: Revision(3),
            modified: Revision(7),
        };
        let plain = Record {
            key: key("b"),
            revision_at: None,
            ..record.clone()
        };
        Change {
            revision: Revision(7),
            time: from_millis(1_700_000_000_123),
            writes: vec![
                Write::Put(record),
                Write::Delete(key("c")),
                Write::Put(plain),
            ],
        }
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        encode_change(&change(), &mut bytes);
        let mut decoder = Decoder::new(&bytes);
        assert_eq!(decoder.change().unwrap(), change());
        decoder.end().unwrap();
    }

    #[test]
    fn a_change_cut_short_anywhere_is_malformed() {
        let mut bytes = Vec::new();
        encode_change(&change(), &mut bytes);
        for len in 0..bytes.len() {
            assert!(Decoder::new(&bytes[..len]).change().is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            if decoder.change().is_ok() {
                let _ = decoder.end();
            }
        }
    }
}
