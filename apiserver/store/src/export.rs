//! Exports: everything at one revision, in one checksummed file that needs no database to be read.
//!
//! ```text
//! "peapod export 1\n"
//! frame: revision u64 | time in ms u64 | number of entries u64
//! frame: modified u64 | write         for each entry, in the order of keys
//! frame: crc32 of all payloads so far u32
//! ```
//!
//! A file with an export's name is whole: it is written under another name, synced and then
//! renamed. Reading verifies all of it, and gives everything or nothing.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use crate::codec::{Decoder, Malformed, encode_write, from_millis, millis};
use crate::engine::{Record, Write};
use crate::frame;
use crate::revision::Revision;

const MAGIC: &[u8] = b"peapod export 1\n";
const MAGIC_OF_ANY: &[u8] = b"peapod export ";
const PREFIX: &str = "export-";
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The revision that it stands for.
    pub revision: Revision,
    /// Every entry, in the order of keys.
    pub entries: Vec<Record>,
}

/// Why an export could not be written or read.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The file system refused.
    #[error("cannot {action} the export {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no export, or damaged.
    #[error("the export {} is damaged: {why}; use another", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not check.
        why: &'static str,
    },
}

/// Writes `entries` as of `revision` to `path`, durably: on success the file is whole and on disk,
/// otherwise `path` is as it was.
///
/// # Errors
/// [`ExportError::Io`].
pub fn write(
    path: &Path,
    revision: Revision,
    count: usize,
    entries: impl Iterator<Item = Record>,
) -> Result<(), ExportError> {
    let partial = path.with_extension("partial");
    let outcome = write_partial(&partial, revision, count, entries)
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| sync_dir(path.parent().unwrap_or(Path::new("."))));
    outcome.map_err(|source| {
        let _ = fs::remove_file(&partial);
        ExportError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}

fn write_partial(
    path: &Path,
    revision: Revision,
    count: usize,
    entries: impl Iterator<Item = Record>,
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, File::create(path)?);
    write_to(&mut file, revision, count, entries)?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

/// Writes `entries` as of `revision` to wherever bytes go, one entry at a time.
pub(crate) fn write_to(
    out: &mut impl io::Write,
    revision: Revision,
    count: usize,
    entries: impl Iterator<Item = Record>,
) -> io::Result<()> {
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = MAGIC.to_vec();
    frame::push(&mut buffer, |out| {
        let start = out.len();
        out.extend_from_slice(&revision.0.to_le_bytes());
        out.extend_from_slice(&millis(SystemTime::now()).to_le_bytes());
        out.extend_from_slice(&(count as u64).to_le_bytes());
        sum.update(&out[start..]);
    });
    for record in entries {
        frame::push(&mut buffer, |out| {
            let start = out.len();
            out.extend_from_slice(&record.modified.0.to_le_bytes());
            encode_write(&Write::Put(record), out);
            sum.update(&out[start..]);
        });
        out.write_all(&buffer)?;
        buffer.clear();
    }
    frame::push(&mut buffer, |out| {
        out.extend_from_slice(&sum.finalize().to_le_bytes())
    });
    out.write_all(&buffer)
}

/// What an export says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The revision that it stands for.
    pub revision: Revision,
    /// When it was made.
    pub time: SystemTime,
    /// How many entries it has.
    pub entries: u64,
}

/// Reads an export entry by entry, in bounded memory. What it gives is certain only when all of it
/// was read: then [`Reader::next`] has said that there is no more.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    head: Head,
    left: u64,
    sum: crc32fast::Hasher,
}

// === impl Reader ===

impl Reader {
    /// Opens the export at `path`, and reads its head.
    ///
    /// # Errors
    /// [`ExportError`]: it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let file = File::open(path).map_err(cannot_read(path))?;
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            head: Head {
                revision: Revision::ZERO,
                time: SystemTime::UNIX_EPOCH,
                entries: 0,
            },
            left: 0,
            sum: crc32fast::Hasher::new(),
        };
        let mut magic = [0; MAGIC.len()];
        let read = reader.file.read_exact(&mut magic);
        read.map_err(|_| reader.damaged("it is too short"))?;
        if magic != MAGIC {
            let other = magic.starts_with(MAGIC_OF_ANY);
            return Err(reader.damaged(match other {
                true => "it is of another version; use the release that wrote it",
                false => "it does not begin as one",
            }));
        }
        let payload = reader.frame()?;
        reader.sum.update(&payload);
        let head = decode_head(&payload);
        reader.head = head.map_err(|error| reader.damaged(error.0))?;
        reader.left = reader.head.entries;
        Ok(reader)
    }

    /// What it says of itself.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The next entry, in the order of keys; `None` once everything was read and is sound.
    ///
    /// # Errors
    /// [`ExportError`]: it cannot be read, or anything in it does not check.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator over results ends too early"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, ExportError> {
        let payload = self.frame()?;
        if self.left == 0 {
            let sum = self.sum.clone().finalize();
            if payload != sum.to_le_bytes() {
                return Err(self.damaged("its whole does not check"));
            }
            let mut more = [0];
            return match self.file.read(&mut more).map_err(cannot_read(&self.path))? {
                0 => Ok(None),
                _ => Err(self.damaged("it goes on after its end")),
            };
        }
        self.left -= 1;
        self.sum.update(&payload);
        let record = decode_entry(&payload).map_err(|error| self.damaged(error.0))?;
        Ok(Some(record))
    }

    fn frame(&mut self) -> Result<Vec<u8>, ExportError> {
        let payload = frame::next(&mut self.file).map_err(cannot_read(&self.path))?;
        payload.ok_or_else(|| self.damaged("a checksum is wrong"))
    }

    fn damaged(&self, why: &'static str) -> ExportError {
        ExportError::Damaged {
            path: self.path.clone(),
            why,
        }
    }
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io {
        action: "read",
        path,
        source,
    }
}

/// Reads and verifies the export at `path`.
///
/// # Errors
/// [`ExportError`]: it cannot be read, or anything in it does not check.
pub fn read(path: &Path) -> Result<Export, ExportError> {
    let mut reader = Reader::open(path)?;
    let mut entries = Vec::new();
    while let Some(record) = reader.next()? {
        entries.push(record);
    }
    Ok(Export {
        revision: reader.head.revision,
        entries,
    })
}

/// Reads and verifies the export at `path`, keeping none of it.
///
/// # Errors
/// As [`read`].
pub fn verify(path: &Path) -> Result<Head, ExportError> {
    let mut reader = Reader::open(path)?;
    while reader.next()?.is_some() {}
    Ok(reader.head)
}

fn decode_head(payload: &[u8]) -> Result<Head, Malformed> {
    let mut decoder = Decoder::new(payload);
    let head = Head {
        revision: Revision(decoder.u64()?),
        time: from_millis(decoder.u64()?),
        entries: decoder.u64()?,
    };
    decoder.end()?;
    Ok(head)
}

fn decode_entry(payload: &[u8]) -> Result<Record, Malformed> {
    let mut decoder = Decoder::new(payload);
    let modified = Revision(decoder.u64()?);
    let write = decoder.write(modified)?;
    decoder.end()?;
    match write {
        Write::Put(record) => Ok(record),
        Write::Delete(_) => Err(Malformed("an entry is a deletion")),
    }
}

/// The name of the export of `revision` in `dir`.
pub(crate) fn path_of(dir: &Path, revision: Revision) -> PathBuf {
    dir.join(format!("{PREFIX}{:020}", revision.0))
}

/// The exports in `dir`, oldest first.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(Revision, PathBuf)>> {
    numbered(dir, |name| name.strip_prefix(PREFIX))
}

/// The files of `dir` whose name `number` finds a revision in, by that.
pub(crate) fn numbered(
    dir: &Path,
    number: impl Fn(&str) -> Option<&str>,
) -> io::Result<Vec<(Revision, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(revision) = name
            .and_then(&number)
            .and_then(|digits| digits.parse().ok())
        {
            found.push((Revision(revision), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn record(name: &str, modified: u64) -> Record {
        Record {
            key: Key::new(format!("/core/pods/a/{name}")).unwrap(),
            value: format!("rv={modified}").into(),
            revision_at: Some(3),
            created: Revision(1),
            modified: Revision(modified),
        }
    }

    fn exported(dir: &Path) -> (PathBuf, Export) {
        let entries = vec![record("x", 4), record("y", 9)];
        let path = path_of(dir, Revision(9));
        write(&path, Revision(9), entries.len(), entries.iter().cloned()).unwrap();
        (
            path,
            Export {
                revision: Revision(9),
                entries,
            },
        )
    }

    #[test]
    fn an_export_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, export) = exported(dir.path());
        assert_eq!(read(&path).unwrap(), export);
        assert_eq!(list(dir.path()).unwrap(), [(Revision(9), path)]);
    }

    #[test]
    fn a_damaged_export_gives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = exported(dir.path());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(
                matches!(read(&path), Err(ExportError::Damaged { .. })),
                "flipped at {at}"
            );
            fs::write(&path, &whole[..at]).unwrap();
            assert!(
                matches!(read(&path), Err(ExportError::Damaged { .. })),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn what_an_export_is_not_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (path, export) = exported(dir.path());
        let head = verify(&path).unwrap();
        assert_eq!((head.revision, head.entries), (export.revision, 2));
        let mut longer = fs::read(&path).unwrap();
        longer.push(0);
        fs::write(&path, &longer).unwrap();
        let error = verify(&path).unwrap_err().to_string();
        assert!(error.contains("goes on after its end"), "{error}");
        longer[MAGIC.len() - 2] = b'2';
        fs::write(&path, &longer).unwrap();
        let error = verify(&path).unwrap_err().to_string();
        assert!(error.contains("of another version"), "{error}");
    }

    #[test]
    fn an_export_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("export-1");
        let error = write(&path, Revision(1), 0, std::iter::empty()).unwrap_err();
        assert!(matches!(
            error,
            ExportError::Io {
                action: "write",
                ..
            }
        ));
    }
}
