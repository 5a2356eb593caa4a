//! Opening the store's directory, whatever state it was left in.
//!
//! A database that opens and verifies is used; should the tail reach further, the database has
//! lost acknowledged writes, and they are taken from the tail. A database that does not is set
//! aside, never deleted, and a new one is made of the newest sound export and the tail after it, as
//! far as that is provable. Nothing is guessed: what was done, and which revision was reached, is
//! told in a [`Recovery`]. After either, revisions go on far beyond any that the damaged
//! database can have given, and the history begins there, so that no client takes one state for
//! another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::disk::{Disk, DiskError};
use super::layout::Layout;
use super::report::{OpenError, Recovery};
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
        Err(DiskError::Newer(format)) => {
            let dir = layout.root.clone();
            return Err(OpenError::Newer { dir, format });
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
    // A database that lost something may have had more than the tail proves.
    let resumed_at = Revision(reached.0 + REVISION_JUMP);
    (meta.head, meta.floor, meta.live) = (resumed_at, resumed_at, ledger.len() as u64);
    let written = disk
        .commit(missing.iter(), &[], meta)
        .and_then(|()| disk.scan());
    let scan = written.map_err(|error| failed(layout, &error))?;
    let recovery = Recovery {
        cause: format!("the database ends at revision {head}, but more had been acknowledged"),
        set_aside: None,
        export: None,
        reached,
        resumed_at,
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
    let mut present: BTreeMap<_, _> = entries
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
    let mut changes: BTreeMap<Revision, Change> = BTreeMap::new();
    for record in entries {
        let fresh = || Change {
            revision: record.modified,
            time: SystemTime::UNIX_EPOCH,
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
pub(super) fn swap(layout: &Layout) -> io::Result<Option<PathBuf>> {
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

pub(super) fn failed(layout: &Layout, error: &DiskError) -> OpenError {
    let why = io::Error::other(error.to_string());
    layout.system("cannot write the restored database")(why)
}

fn export_failed(layout: &Layout, error: ExportError) -> OpenError {
    layout.system("cannot write the restored content")(io::Error::other(error.to_string()))
}
