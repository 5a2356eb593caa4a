//! What the rows of the database look like. Pure: bytes in, bytes out.
//!
//! ```text
//! "m"                                         head, floor, number of present keys
//! "r" revision u64 BE | index u16 BE | part u16 BE     one write of that revision, in parts
//! ```
//!
//! The database is a log of writes by revision, not a map of keys: each value is written once,
//! appended at one end, and the recent past can be read after a restart. The newest write of a key
//! is its present value. A write that was superseded is removed once it is older than the floor.
//!
//! Rows are split in parts of at most [`PART_BYTES`]: sled keeps up to 21 rows in a page, and a page
//! above 128 KiB goes to a file of its own that sled never syncs.

use crate::codec::{Decoder, Malformed, encode_write, from_millis, millis, put_bytes};
use crate::engine::{Change, Write};
use crate::key::Key;
use crate::revision::Revision;

/// The most bytes of a row.
pub(super) const PART_BYTES: usize = 5 << 10;

/// The key of the row about the whole database.
pub(super) const META_KEY: &[u8] = b"m";

/// What all write rows' keys begin with.
pub(super) const WRITE_PREFIX: &[u8] = b"r";

/// The format of the database. The next one needs a step that brings a database of this one to it.
const FORMAT: u32 = 1;
/// crc32, time, number of writes of the change.
const ROW_HEAD_BYTES: usize = 4 + 8 + 2;

/// Which write of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub revision: Revision,
    pub index: u16,
}

/// What the database says of itself, updated with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// The newest revision.
    pub head: Revision,
    /// The oldest revision that can be read.
    pub floor: Revision,
    /// How many keys are present.
    pub live: u64,
}

/// A write as it is read back.
#[derive(Debug)]
pub(super) struct Row {
    pub write: Write,
    pub time: std::time::SystemTime,
    /// How many writes its change has.
    pub writes: u16,
}

/// How many parts the put of a value of `value_bytes` takes.
pub(super) fn parts_of(key: &Key, value_bytes: usize) -> u16 {
    // At most 3 MiB in parts of 5 KiB.
    (ROW_HEAD_BYTES + put_bytes(key, value_bytes)).div_ceil(PART_BYTES) as u16
}

/// The key of one part of one write.
pub(super) fn part_key(place: Place, part: u16) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = WRITE_PREFIX[0];
    key[1..9].copy_from_slice(&place.revision.0.to_be_bytes());
    key[9..11].copy_from_slice(&place.index.to_be_bytes());
    key[11..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Which part of which write a key names.
pub(super) fn parse_part_key(key: &[u8]) -> Result<(Place, u16), Malformed> {
    let key: &[u8; 13] = key
        .try_into()
        .map_err(|_| Malformed("its key has a wrong length"))?;
    let [_, r0, r1, r2, r3, r4, r5, r6, r7, i0, i1, p0, p1] = *key;
    let revision = Revision(u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]));
    let place = Place {
        revision,
        index: u16::from_be_bytes([i0, i1]),
    };
    Ok((place, u16::from_be_bytes([p0, p1])))
}

/// Writes the row of `change`'s write number `index` into `out`, whose old content goes.
pub(super) fn encode_row(change: &Change, index: u16, write: &Write, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&millis(change.time).to_le_bytes());
    out.extend_from_slice(&(change.writes.len() as u16).to_le_bytes());
    encode_write(write, out);
    let place = Place {
        revision: change.revision,
        index,
    };
    let crc = checksum(place, &out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the row at `place`, all of its parts joined.
pub(super) fn decode_row(place: Place, row: &[u8]) -> Result<Row, Malformed> {
    let mut decoder = Decoder::new(row);
    if decoder.u32()? != checksum(place, &row[4..]) {
        return Err(Malformed("its checksum is wrong"));
    }
    let time = from_millis(decoder.u64()?);
    let writes = decoder.u16()?;
    let write = decoder.write(place.revision)?;
    decoder.end()?;
    Ok(Row {
        write,
        time,
        writes,
    })
}

/// Covers the place too, so that a row under a wrong key does not pass.
fn checksum(place: Place, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&part_key(place, 0));
    hasher.update(body);
    hasher.finalize()
}

// === impl Meta ===

impl Meta {
    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend_from_slice(&FORMAT.to_le_bytes());
        for number in [self.head.0, self.floor.0, self.live] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The format that a row says it has, if that is none of this release's: it was written by a newer one.
    pub fn newer(bytes: &[u8]) -> Option<u32> {
        let mut decoder = Decoder::new(bytes);
        let sound = decoder.u32().ok()? == crc32fast::hash(bytes.get(4..)?);
        decoder
            .u32()
            .ok()
            .filter(|format| sound && *format > FORMAT)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(bytes);
        if decoder.u32()? != crc32fast::hash(&bytes[4..]) {
            return Err(Malformed("its checksum is wrong"));
        }
        if decoder.u32()? != FORMAT {
            return Err(Malformed("its format is of another version"));
        }
        let meta = Self {
            head: Revision(decoder.u64()?),
            floor: Revision(decoder.u64()?),
            live: decoder.u64()?,
        };
        decoder.end()?;
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Record;

    fn change(value: &'static str) -> Change {
        let record = Record {
            key: Key::new("/core/pods/a/x").unwrap(),
            value: value.into(),
            revision_at: None,
            created: Revision(5),
            modified: Revision(7),
        };
        Change {
            revision: Revision(7),
            time: from_millis(99),
            writes: vec![Write::Put(record)],
        }
    }

    fn row(change: &Change) -> Vec<u8> {
        let mut row = Vec::new();
        encode_row(change, 0, &change.writes[0], &mut row);
        row
    }

    #[test]
    fn a_format_of_the_future_is_told_from_damage() {
        let mut bytes = Meta::default().encode();
        assert_eq!(Meta::newer(&bytes), None);
        bytes[4] = 9;
        assert_eq!(Meta::newer(&bytes), None, "its checksum is wrong");
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Meta::newer(&bytes), Some(9));
        assert_eq!(Meta::newer(&bytes[..3]), None);
    }

    #[test]
    fn a_row_is_read_as_it_was_written_and_only_at_its_place() {
        let change = change("v");
        let place = Place {
            revision: Revision(7),
            index: 0,
        };
        let read = decode_row(place, &row(&change)).unwrap();
        assert_eq!((&read.write, read.time), (&change.writes[0], change.time));
        assert_eq!(read.writes, 1);
        assert!(decode_row(Place { index: 1, ..place }, &row(&change)).is_err());
    }

    #[test]
    fn a_flipped_bit_does_not_pass() {
        let place = Place {
            revision: Revision(7),
            index: 0,
        };
        let sound = row(&change("v"));
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            assert!(decode_row(place, &bytes).is_err(), "flipped at {at}");
        }
        let sound = Meta {
            head: Revision(9),
            floor: Revision(2),
            live: 3,
        }
        .encode();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            assert!(Meta::decode(&bytes).is_err(), "flipped at {at}");
            assert!(Meta::decode(&sound[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn parts_are_ordered_as_the_log_is_and_counted_as_they_are_written() {
        let at = |revision, index, part| {
            part_key(
                Place {
                    revision: Revision(revision),
                    index,
                },
                part,
            )
        };
        let keys = [
            at(1, 0, 0),
            at(1, 0, 1),
            at(1, 1, 0),
            at(255, 0, 0),
            at(256, 0, 0),
        ];
        assert!(keys.is_sorted());
        assert_eq!(
            parse_part_key(&at(256, 3, 7)).unwrap(),
            (
                Place {
                    revision: Revision(256),
                    index: 3
                },
                7
            )
        );
        let change = change("v");
        let key = change.writes[0].key();
        let head = row(&change).len() - 1;
        for (value_bytes, parts) in [
            (1, 1),
            (PART_BYTES - head, 1),
            (PART_BYTES - head + 1, 2),
            (3 << 20, 615),
        ] {
            assert_eq!(parts_of(key, value_bytes), parts, "{value_bytes}");
        }
    }
}
