//! The database on disk: sled, fenced.
//!
//! What sled 0.34 does not give by itself, and how this module makes up for it:
//! - `flush` is `sync_file_range`, which does not make a file's growth durable: after each flush the
//!   database file, opened a second time, is synced. Only then is a batch on disk.
//! - pages above 128 KiB go to files that are never synced: rows are small (see [`super::rows`]).
//! - many trees cost space: there is one.
//! - a half-written snapshot can stop it from opening: it is removed first.
//! - it can panic on damaged files: panics are caught and are errors like others.
//! - reads are never needed while running; its cache is kept small.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use super::garbage::Dead;
use super::rows::{
    META_KEY, Meta, PART_BYTES, Place, WRITE_PREFIX, decode_row, encode_row, parse_part_key,
    part_key,
};
use super::scan::{Scan, Scanner};
use crate::codec::Malformed;
use crate::engine::{Change, Record, Write};
use crate::export::sync_dir;

/// Bytes that sled may keep of what it read. The minimum useful: nothing is read while running.
const CACHE_BYTES: u64 = 16 << 20;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    /// The system refused: the database itself may well be sound.
    #[error("{action} {}: {source}", path.display())]
    System {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is on disk is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It is of a newer release, which knows this format.
    #[error("it has format {0}")]
    Newer(u32),
}

/// An open database.
#[derive(Debug)]
pub(super) struct Disk {
    db: sled::Db,
    dir: PathBuf,
    /// The file that sled writes to, for syncing it.
    log: File,
}

// === impl DiskError ===

impl DiskError {
    pub fn system(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::System {
            action,
            path,
            source,
        }
    }

    /// What sled says, told apart: did the system refuse, or is the database damaged?
    fn sled(action: &'static str, path: &Path) -> impl FnOnce(sled::Error) -> Self {
        move |error| match error {
            sled::Error::Io(source) if !speaks_of_damage(&source) => {
                Self::system(action, path)(source)
            }
            other => Self::Damaged(format!("{action} {}: {other}", path.display())),
        }
    }
}

/// sled reports much of what it finds damaged as IO errors of its own making, which carry no error
/// number of the system.
fn speaks_of_damage(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

impl From<Malformed> for DiskError {
    fn from(malformed: Malformed) -> Self {
        Self::Damaged(malformed.to_string())
    }
}

// === impl Disk ===

impl Disk {
    /// Opens or creates the database in `dir`, and makes its existence durable.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(dir).map_err(DiskError::system("cannot create", dir))?;
        remove_half_snapshots(dir).map_err(DiskError::system("cannot tidy", dir))?;
        let path = dir.join("db");
        refuse_if_open(&path).map_err(DiskError::system("cannot open", &path))?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let db = contained("opening the database", || config.open())?
            .map_err(DiskError::sled("cannot open", dir))?;
        let log = File::options().read(true).write(true).open(&path);
        let log = log.map_err(DiskError::system("cannot open", &path))?;
        let disk = Self {
            db,
            dir: dir.to_owned(),
            log,
        };
        disk.sync_all()?;
        Ok(disk)
    }

    /// Closes it, and returns once sled's own threads have let go of its files.
    pub fn close(self) {
        let Self { db, log, .. } = self;
        drop(db);
        // sled holds this lock for as long as it has the file open.
        if let Err(error) = log.lock() {
            tracing::debug!(%error, "cannot wait for the database to close");
        }
    }

    /// Reads and verifies everything.
    pub fn scan(&self) -> Result<Scan, DiskError> {
        contained("reading the database", || self.scan_rows())?
    }

    fn scan_rows(&self) -> Result<Scan, DiskError> {
        let cannot_read = || DiskError::sled("cannot read", &self.dir);
        let meta = self.db.get(META_KEY).map_err(cannot_read())?;
        if let Some(format) = meta.as_ref().and_then(|bytes| Meta::newer(bytes)) {
            return Err(DiskError::Newer(format));
        }
        let meta = meta.map(|bytes| Meta::decode(&bytes)).transpose()?;
        let mut scanner = Scanner::new(meta.unwrap_or_default());
        let mut joined: Option<(Place, Vec<u8>)> = None;
        for row in self.db.scan_prefix(WRITE_PREFIX) {
            let (key, value) = row.map_err(cannot_read())?;
            let (place, part) = parse_part_key(&key)?;
            match &mut joined {
                Some((current, bytes)) if *current == place && part > 0 => {
                    bytes.extend_from_slice(&value);
                }
                _ => {
                    if let Some((place, bytes)) = joined.replace((place, value.to_vec())) {
                        scanner.row(place, decode_row(place, &bytes)?)?;
                    }
                }
            }
        }
        if let Some((place, bytes)) = joined {
            scanner.row(place, decode_row(place, &bytes)?)?;
        }
        Ok(scanner.finish()?)
    }

    /// Writes `changes`, removes `dead`, and returns once both are on disk, or neither is certain
    /// to be.
    pub fn commit<'c>(
        &self,
        changes: impl Iterator<Item = &'c Change>,
        dead: &[Dead],
        meta: Meta,
    ) -> Result<(), DiskError> {
        let mut batch = sled::Batch::default();
        let mut row = Vec::new();
        for change in changes {
            for (index, write) in change.writes.iter().enumerate() {
                let index = index as u16; // at most MAX_OPS
                encode_row(change, index, write, &mut row);
                let place = Place {
                    revision: change.revision,
                    index,
                };
                for (part, bytes) in row.chunks(PART_BYTES).enumerate() {
                    batch.insert(&part_key(place, part as u16), bytes);
                }
            }
        }
        for dead in dead {
            (0..dead.parts).for_each(|part| batch.remove(&part_key(dead.place, part)));
        }
        batch.insert(META_KEY, meta.encode());
        contained("writing to the database", || self.db.apply_batch(batch))?
            .map_err(DiskError::sled("cannot write to", &self.dir))?;
        self.flush()
    }

    /// Writes entries, each at a place of its own, and returns once they are on disk.
    pub fn load(
        &self,
        entries: &[(Place, Record)],
        time: SystemTime,
        meta: Meta,
    ) -> Result<(), DiskError> {
        let mut batch = sled::Batch::default();
        let mut row = Vec::new();
        for (place, record) in entries {
            let change = Change {
                revision: place.revision,
                time,
                writes: vec![Write::Put(record.clone())],
            };
            encode_row(&change, place.index, &change.writes[0], &mut row);
            for (part, bytes) in row.chunks(PART_BYTES).enumerate() {
                batch.insert(&part_key(*place, part as u16), bytes);
            }
        }
        batch.insert(META_KEY, meta.encode());
        contained("writing to the database", || self.db.apply_batch(batch))?
            .map_err(DiskError::sled("cannot write to", &self.dir))?;
        self.flush()
    }

    fn flush(&self) -> Result<(), DiskError> {
        contained("writing to the database", || self.db.flush())?
            .map_err(DiskError::sled("cannot write to", &self.dir))?;
        self.log
            .sync_data()
            .map_err(DiskError::system("cannot sync", &self.dir))
    }

    /// Makes the files themselves durable, not only what is in the one that is written to.
    fn sync_all(&self) -> Result<(), DiskError> {
        self.flush()?;
        let synced =
            sync_files(&self.dir).and_then(|()| self.dir.parent().map_or(Ok(()), sync_dir));
        synced.map_err(DiskError::system("cannot sync", &self.dir))
    }
}

fn sync_files(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        File::open(file?.path())?.sync_all()?;
    }
    sync_dir(dir)
}

/// Runs what may panic on damaged files; a panic becomes damage.
fn contained<T>(what: &str, work: impl FnOnce() -> T) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        DiskError::Damaged(format!(
            "{what} panicked: {}",
            text.unwrap_or("no reason given")
        ))
    })
}

/// sled reports a file that is in use as it reports a damaged one: ask first.
fn refuse_if_open(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.try_lock().map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// sled's snapshots are written under another name first; what has that name still is incomplete.
fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
