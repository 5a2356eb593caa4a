//! Opening the store's directory, whatever state it was left in.
//!
//! ```text
//! DIR/LOCK                 held while a process has the store open
//! DIR/db/                  the database: what makes writes durable
//! DIR/tail/tail-REVISION   every change since the last export (see `tail`)
//! DIR/export/export-REVISION   everything at a revision (see `crate::export`)
//! DIR/damaged-N/           a database that was set aside
//! ```
//!
//! A database that opens and verifies is used; should the tail reach further, the database has
//! lost acknowledged writes, and they are taken from the tail. A database that does not is set
//! aside, never deleted, and a new one is made of the newest sound export and the tail after it, as
//! far as that is provable. Nothing is guessed: what was done, and which revision was reached, is
//! told in a [`Recovery`]. After a restoration revisions go on far beyond any that the damaged
//! database can have given, and the history begins there, so that no client takes one state for
//! another.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::{Disk, DiskError};
use super::rows::Meta;
use super::scan::Scan;
use super::tail;
use crate::engine::{Change, Record, Write};
use crate::export::{self, Export, ExportError, sync_dir};
use crate::revision::Revision;

/// How far revisions jump after a restoration: more than what can have been written and lost
/// between the last that is provable and the damage.
const REVISION_JUMP: u64 = 1_000_000;

/// How many changes are written at once when a database is rebuilt.
const REBUILD_BATCH: usize = 256;

/// What had to be done to open a store. It is logged as a warning, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What was wrong.
    pub cause: String,
    /// Where the damaged database is now.
    pub set_aside: Option<PathBuf>,
    /// The export that was restored, with its revision.
    pub export: Option<(PathBuf, Revision)>,
    /// The last revision whose content is known to be complete.
    pub reached: Revision,
    /// The revision that the store goes on from.
    pub resumed_at: Revision,
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store {} is in use by another process; stop it first", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot open the store {}: {what}: {source}", dir.display())]
    System {
        /// The store's directory.
        dir: PathBuf,
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is damaged, and so is what it would be restored from.
    #[error(
        "the store {} is damaged ({cause}) and cannot be restored: {why}; restore a backup into \
         it, or move it away to begin anew",
        dir.display()
    )]
    Lost {
        /// The store's directory.
        dir: PathBuf,
        /// What is wrong with the database.
        cause: String,
        /// What is wrong with the rest.
        why: String,
    },
}

/// The places in a store's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
}

/// An open store directory.
#[derive(Debug)]
pub(super) struct Opened {
    pub disk: Disk,
    pub scan: Scan,
    pub recovery: Option<Recovery>,
    /// Whether export and tail together hold everything that the database does.
    pub covered: bool,
    pub lock: File,
}

// === impl Layout ===

impl Layout {
    pub fn db(&self) -> PathBuf {
        self.root.join("db")
    }

    pub fn tail(&self) -> PathBuf {
        self.root.join("tail")
    }

    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    /// Where a database is rebuilt before it takes its place.
    fn rebuilt(&self) -> PathBuf {
        self.root.join("db.rebuilt")
    }

    fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.tail())?;
        fs::create_dir_all(self.export())?;
        sync_dir(&self.root)?;
        self.root.parent().map_or(Ok(()), sync_dir)
    }

    /// A name for what is set aside that nothing has yet.
    fn damaged(&self) -> PathBuf {
        let names = (1..).map(|n: u32| self.root.join(format!("damaged-{n}")));
        names
            .into_iter()
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.root.join("damaged"))
    }

    fn system(&self, what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let (dir, what) = (self.root.clone(), what.into());
        move |source| OpenError::System { dir, what, source }
    }

    fn lock(&self) -> Result<File, OpenError> {
        let path = self.root.join("LOCK");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let file = file.map_err(self.system("cannot lock it"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(self.system("cannot lock it")(source)),
        }
    }
}

/// Opens the store in `layout`, restoring it if it must be.
pub(super) fn open(layout: &Layout) -> Result<Opened, OpenError> {
    layout.create().map_err(layout.system("cannot create it"))?;
    let lock = layout.lock()?;
    let rebuilt = layout.rebuilt();
    if rebuilt.exists() {
        fs::remove_dir_all(&rebuilt).map_err(layout.system("cannot remove db.rebuilt"))?;
    }
    let (disk, scan, recovery) = match open_database(layout) {
        Ok((disk, scan)) => catch_up(layout, disk, scan)?,
        Err(DiskError::System {
            action,
            path,
            source,
        }) => {
            return Err(layout.system(format!("{action} {}", path.display()))(
                source,
            ));
        }
        Err(DiskError::Damaged(cause)) => restore(layout, cause)?,
    };
    let covered = covers(layout, scan.meta.head)?;
    if let Some(recovery) = &recovery {
        tracing::warn!(store = %layout.root.display(), "{recovery}");
    }
    Ok(Opened {
        disk,
        scan,
        recovery,
        covered,
        lock,
    })
}

fn open_database(layout: &Layout) -> Result<(Disk, Scan), DiskError> {
    let db = layout.db();
    // The copies are made after the database has the content: where they are, it had some.
    let has_copies = has_copies(layout).map_err(DiskError::system("cannot list", &layout.root))?;
    if has_copies && !db.exists() {
        return Err(DiskError::Damaged("the database is missing".to_owned()));
    }
    let disk = Disk::open(&db)?;
    let scan = disk.scan()?;
    if has_copies && scan.meta == Meta::default() {
        return Err(DiskError::Damaged("the database is empty".to_owned()));
    }
    Ok((disk, scan))
}

fn has_copies(layout: &Layout) -> io::Result<bool> {
    Ok(!export::list(&layout.export())?.is_empty() || !tail::is_empty(&layout.tail())?)
}

/// Takes from the tail what the database has lost.
fn catch_up(
    layout: &Layout,
    disk: Disk,
    scan: Scan,
) -> Result<(Disk, Scan, Option<Recovery>), OpenError> {
    let head = scan.meta.head;
    let missing = changes_after(layout, head)?;
    let Some(reached) = missing.last().map(|change| change.revision) else {
        return Ok((disk, scan, None));
    };
    let mut ledger = scan.ledger;
    let mut meta = scan.meta;
    for change in &missing {
        for (index, write) in change.writes.iter().enumerate() {
            ledger.learn(write, index as u16); // at most MAX_OPS
        }
    }
    (meta.head, meta.live) = (reached, ledger.len() as u64);
    let written = disk
        .commit(missing.iter(), &[], meta)
        .and_then(|()| disk.scan());
    let scan = written.map_err(|error| failed(layout, &error))?;
    let recovery = Recovery {
        cause: format!("the database ends at revision {head}, but more had been acknowledged"),
        set_aside: None,
        export: None,
        reached,
        resumed_at: reached,
    };
    Ok((disk, scan, Some(recovery)))
}

/// Makes a new database of what is provable, and sets the old one aside.
fn restore(layout: &Layout, cause: String) -> Result<(Disk, Scan, Option<Recovery>), OpenError> {
    tracing::error!(store = %layout.root.display(), %cause, "the store's database is damaged");
    let source = newest_export(layout).map_err(|error| OpenError::Lost {
        dir: layout.root.clone(),
        cause: cause.clone(),
        why: error.to_string(),
    })?;
    let (export, start) = match source {
        Some((path, export)) => (Some((path, export.revision)), export),
        None => (
            None,
            Export {
                revision: Revision::ZERO,
                entries: Vec::new(),
            },
        ),
    };
    let missing = changes_after(layout, start.revision)?;
    let reached = missing
        .last()
        .map_or(start.revision, |change| change.revision);
    let entries = replay(start.entries, missing);
    let resumed_at = Revision(reached.0 + REVISION_JUMP);

    // The new export first: from here on everything can be found again at its revision, even if
    // this process dies before it is done.
    let path = export::path_of(&layout.export(), resumed_at);
    let written = export::write(&path, resumed_at, entries.len(), entries.iter().cloned());
    written.map_err(|error| export_failed(layout, error))?;
    rebuild(&layout.rebuilt(), &entries, resumed_at).map_err(|error| failed(layout, &error))?;
    let set_aside = swap(layout).map_err(layout.system("cannot set the damaged database aside"))?;
    tail::prune(&layout.tail(), resumed_at).map_err(layout.system("cannot tidy the tail"))?;
    let opened = Disk::open(&layout.db()).and_then(|disk| Ok((disk.scan()?, disk)));
    let (scan, disk) = opened.map_err(|error| failed(layout, &error))?;
    let recovery = Recovery {
        cause,
        set_aside,
        export,
        reached,
        resumed_at,
    };
    Ok((disk, scan, Some(recovery)))
}

/// The entries after `changes`, in the order of their keys.
fn replay(entries: Vec<Record>, changes: Vec<Change>) -> Vec<Record> {
    let mut present: std::collections::BTreeMap<_, _> = entries
        .into_iter()
        .map(|record| (record.key.clone(), record))
        .collect();
    for write in changes.into_iter().flat_map(|change| change.writes) {
        match write {
            Write::Put(record) => present.insert(record.key.clone(), record),
            Write::Delete(key) => present.remove(&key),
        };
    }
    present.into_values().collect()
}

/// Writes a new database in `dir` that holds `entries` and no history.
fn rebuild(dir: &Path, entries: &[Record], head: Revision) -> Result<(), DiskError> {
    let disk = Disk::open(dir)?;
    // Each entry at the place where it was written; the places that it shared are not its own.
    let mut changes: std::collections::BTreeMap<Revision, Change> = Default::default();
    for record in entries {
        let fresh = || Change {
            revision: record.modified,
            time: std::time::SystemTime::UNIX_EPOCH,
            writes: Vec::new(),
        };
        let change = changes.entry(record.modified).or_insert_with(fresh);
        change.writes.push(Write::Put(record.clone()));
    }
    let changes: Vec<Change> = changes.into_values().collect();
    let meta = Meta {
        head,
        floor: head,
        live: entries.len() as u64,
    };
    for batch in changes.chunks(REBUILD_BATCH) {
        disk.commit(batch.iter(), &[], meta)?;
    }
    disk.commit(std::iter::empty(), &[], meta)?;
    disk.close();
    Ok(())
}

/// Puts the rebuilt database in the place of the damaged one, which is kept.
fn swap(layout: &Layout) -> io::Result<Option<PathBuf>> {
    let db = layout.db();
    let set_aside = db.exists().then(|| layout.damaged());
    if let Some(set_aside) = &set_aside {
        fs::rename(&db, set_aside)?;
    }
    fs::rename(layout.rebuilt(), &db)?;
    sync_dir(&layout.root)?;
    Ok(set_aside)
}

fn changes_after(layout: &Layout, revision: Revision) -> Result<Vec<Change>, OpenError> {
    let mut changes = Vec::new();
    let followed = tail::follow(&layout.tail(), revision, |change| changes.push(change));
    followed.map_err(layout.system("cannot read the tail"))?;
    Ok(changes)
}

/// The newest export that verifies; `None` if there never was one. An error if there are some, but
/// none of them is sound.
fn newest_export(layout: &Layout) -> Result<Option<(PathBuf, Export)>, ExportError> {
    let dir = layout.export();
    let io = |source| ExportError::Io {
        action: "read",
        path: dir.clone(),
        source,
    };
    let mut unsound = None;
    for (_, path) in export::list(&dir).map_err(io)?.into_iter().rev() {
        match export::read(&path) {
            Ok(export) => return Ok(Some((path, export))),
            Err(error) => unsound = unsound.or(Some(error)),
        }
    }
    unsound.map_or(Ok(None), Err)
}

/// Whether the newest export and the tail after it reach `head`.
fn covers(layout: &Layout, head: Revision) -> Result<bool, OpenError> {
    let exports = export::list(&layout.export()).map_err(layout.system("cannot list exports"))?;
    let exported = exports
        .last()
        .map_or(Revision::ZERO, |(revision, _)| *revision);
    let reached = tail::follow(&layout.tail(), exported, drop);
    Ok(reached.map_err(layout.system("cannot read the tail"))? == head)
}

fn failed(layout: &Layout, error: &DiskError) -> OpenError {
    let why = io::Error::other(error.to_string());
    layout.system("cannot write the restored database")(why)
}

fn export_failed(layout: &Layout, error: ExportError) -> OpenError {
    layout.system("cannot write the restored content")(io::Error::other(error.to_string()))
}

// === impl Recovery ===

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. ", self.cause)?;
        if let Some(path) = &self.set_aside {
            write!(
                f,
                "The damaged database was set aside as {}. ",
                path.display()
            )?;
        }
        match &self.export {
            Some((path, revision)) => {
                write!(
                    f,
                    "Restored from {} of revision {revision} and the changes ",
                    path.display()
                )?;
            }
            None => write!(f, "Restored from the changes ")?,
        }
        write!(f, "logged after it, up to revision {}", self.reached)?;
        if self.resumed_at > self.reached {
            write!(
                f,
                "; whatever was written after that is lost. Revisions go on from {}, and watches \
                 must list again",
                self.resumed_at
            )?;
        }
        Ok(())
    }
}
