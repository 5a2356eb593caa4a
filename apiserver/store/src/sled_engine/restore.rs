//! Making a store of an [export](crate::export): the restoration of a backup.
//!
//! Entries keep the revisions at which they were written. The store goes on `bump` above the
//! export's revision, and its history begins there: what was written after the backup and is lost now had
//! revisions too, which must not be given again; and who watched from one of them has to list again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::disk::Disk;
use super::layout::Layout;
use super::recover::{failed, swap};
use super::report::RestoreError;
use super::rows::{Meta, Place};
use crate::engine::Record;
use crate::export::{self, Reader};
use crate::revision::Revision;

/// How many entries are written at once, and how many bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// Makes a store in `dir` of the export at `file`, and returns the revision that it goes on from.
/// Blocks for as long as the disk takes. Memory does not grow with the export, but for a few bytes
/// an entry.
///
/// # Errors
/// [`RestoreError`]: there is a store already, the export is damaged, or the disk refuses. Nothing
/// that a later start would take for a store is left then.
pub fn restore(dir: &Path, file: &Path, bump: u64) -> Result<Revision, RestoreError> {
    let mut reader = Reader::open(file)?;
    let layout = Layout {
        root: dir.to_owned(),
    };
    layout.create().map_err(layout.system("cannot create it"))?;
    let lock = layout.lock()?;
    if layout.db().exists() || has_copies(&layout)? {
        return Err(RestoreError::NotEmpty(dir.display().to_string()));
    }
    let rebuilt = layout.rebuilt();
    if rebuilt.exists() {
        fs::remove_dir_all(&rebuilt).map_err(layout.system("cannot remove db.rebuilt"))?;
    }
    let head = Revision(reader.head().revision.0.saturating_add(bump));
    let written = write(&layout, &mut reader, head);
    if let Err(error) = written {
        // A half-written database is of no use; the next attempt would remove it, too.
        let _ = fs::remove_dir_all(&rebuilt);
        return Err(error);
    }
    swap(&layout).map_err(layout.system("cannot put the database in its place"))?;
    drop(lock);
    Ok(head)
}

fn write(layout: &Layout, reader: &mut Reader, head: Revision) -> Result<(), RestoreError> {
    let disk = Disk::open(&layout.rebuilt()).map_err(|error| failed(layout, &error))?;
    let mut places: HashMap<Revision, u16> = HashMap::new();
    let mut batch: Vec<(Place, Record)> = Vec::new();
    let (mut bytes, mut live) = (0, 0);
    let commit = |batch: &mut Vec<_>, meta| {
        let written = disk.load(batch, SystemTime::UNIX_EPOCH, meta);
        batch.clear();
        written.map_err(|error| failed(layout, &error))
    };
    let meta = |live| Meta {
        head,
        floor: head,
        live,
    };
    while let Some(record) = reader.next()? {
        let index = places.entry(record.modified).or_default();
        let place = Place {
            revision: record.modified,
            index: *index,
        };
        // At most MAX_OPS writes have one revision.
        *index = index.saturating_add(1);
        (bytes, live) = (bytes + record.value.len(), live + 1);
        batch.push((place, record));
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            commit(&mut batch, meta(live))?;
            bytes = 0;
        }
    }
    commit(&mut batch, meta(live))?;
    disk.close();
    Ok(())
}

fn has_copies(layout: &Layout) -> Result<bool, RestoreError> {
    let exports = export::list(&layout.export());
    let exports = exports.map_err(layout.system("cannot list exports"))?;
    let tail = super::tail::is_empty(&layout.tail());
    let tail = tail.map_err(layout.system("cannot list the tail"))?;
    Ok(!exports.is_empty() || !tail)
}
