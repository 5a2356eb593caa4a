//! The files of the log: lines of `CRC32 JSON`, appended and never changed.
//!
//! A line is what became of one placement; a later line of the same placement replaces it. The
//! files are readable by people: `cut -d' ' -f2- FILE | jq`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::recorder::Kept;

/// A segment is closed when it has this many bytes.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// Longest line that is read; no placement comes near it.
const LINE_MAX: u64 = 1 << 20;

/// A line: a placement, with its place in the order of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts changes from 1; the placement's resourceVersion.
    #[serde(rename = "s")]
    pub seq: u32,
    /// The change that the placement began with.
    #[serde(rename = "b")]
    pub born: u32,
    /// The store's revision that led to the change.
    #[serde(rename = "r")]
    pub revision: u64,
    /// The placement.
    #[serde(flatten)]
    pub kept: Kept,
}

/// Where a line lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which segment.
    pub segment: u32,
    /// Its first byte there.
    pub offset: u32,
    /// How many bytes, its end of line included.
    pub len: u32,
}

/// What was found wrong in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that were cut off its end: a line that was not written whole.
    pub torn: u64,
    /// Lines in its middle that are not what was written.
    pub lines: u64,
}

/// A line as it is written.
pub fn encode(line: &Line) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(line)?;
    let mut out = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    out.extend(json);
    out.push(b'\n');
    Ok(out)
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub fn decode(bytes: &[u8]) -> Option<Line> {
    let bytes = bytes.strip_suffix(b"\n")?;
    let (sum, json) = (bytes.get(..8)?, bytes.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (bytes[8] == b' ' && crc32fast::hash(json) == sum).then_some(())?;
    serde_json::from_slice(json).ok()
}

/// The path of a segment.
pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// The numbers of the segments in a directory, in order.
pub fn list(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a segment from its start, and hands out each good line with its place. The end of the
/// last segment may be torn; it is cut off.
pub fn scan(
    dir: &Path,
    number: u32,
    last: bool,
    mut take: impl FnMut(Line, Place),
) -> io::Result<Damage> {
    let path = path(dir, number);
    let mut reader = BufReader::with_capacity(1 << 16, File::open(&path)?);
    let mut damage = Damage::default();
    let (mut offset, mut sound) = (0u64, 0u64);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            break;
        }
        match (decode(&bytes), u32::try_from(offset)) {
            (Some(line), Ok(at)) => {
                // Bad lines before a good one were not the end.
                take(
                    line,
                    Place {
                        segment: number,
                        offset: at,
                        len: read as u32,
                    },
                );
                sound = offset + read;
            }
            _ => damage.lines += 1,
        }
        offset += read;
    }
    if last && sound < offset {
        let file = File::options().write(true).open(&path)?;
        file.set_len(sound)?;
        file.sync_all()?;
        damage.torn = offset - sound;
        damage.lines = damage.lines.saturating_sub(1);
    }
    Ok(damage)
}

/// Reads one line.
pub fn read(file: &File, place: Place) -> io::Result<Line> {
    let mut bytes = vec![0; place.len as usize];
    file.read_exact_at(&mut bytes, place.offset.into())?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the line is damaged");
    decode(&bytes).ok_or_else(damaged)
}

/// The segment that is written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    number: u32,
    len: u64,
}

// === impl Writer ===

impl Writer {
    /// Goes on with a segment, or begins it.
    pub fn open(dir: &Path, number: u32) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path(dir, number))?;
        let len = file.metadata()?.len();
        // A new name must be on disk before what is written under it.
        File::open(dir)?.sync_all()?;
        Ok(Self { file, number, len })
    }

    /// Whether the next lines belong into a segment of their own.
    pub fn is_full(&self) -> bool {
        self.len >= SEGMENT_BYTES
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends lines and waits until they are on disk. When it fails, nothing was appended.
    pub fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(lines.len());
        let mut at = self.len;
        for line in lines {
            places.push(Place {
                segment: self.number,
                offset: u32::try_from(at).map_err(io::Error::other)?,
                len: line.len() as u32,
            });
            at += line.len() as u64;
        }
        let written = self
            .file
            .write_all(&lines.concat())
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.len = at,
            // Half a line would spoil the next one.
            Err(fault) => {
                self.file.set_len(self.len)?;
                return Err(fault);
            }
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_no_line(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&bytes), None);
            let dir = tempfile::tempdir().unwrap();
            fs::write(path(dir.path(), 1), &bytes).unwrap();
            scan(dir.path(), 1, true, |line, _| panic!("{line:?}")).unwrap();
            prop_assert_eq!(fs::metadata(path(dir.path(), 1)).unwrap().len(), 0);
        }
    }
}
