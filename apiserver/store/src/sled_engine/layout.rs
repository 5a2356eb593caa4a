//! A store's directory: what is where, and who may touch it.
//!
//! ```text
//! DIR/LOCK                 held while a process has the store open
//! DIR/db/                  the database: what makes writes durable
//! DIR/tail/tail-REVISION   every change since the last export (see `tail`)
//! DIR/export/export-REVISION   everything at a revision (see `crate::export`)
//! DIR/damaged-N/           a database that was set aside
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;

use super::report::OpenError;
use crate::export::sync_dir;

/// The places in a store's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// The database.
    pub fn db(&self) -> PathBuf {
        self.root.join("db")
    }

    /// The tail's segments.
    pub fn tail(&self) -> PathBuf {
        self.root.join("tail")
    }

    /// The exports.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    /// Where a database is rebuilt before it takes its place.
    pub fn rebuilt(&self) -> PathBuf {
        self.root.join("db.rebuilt")
    }

    /// Makes what is missing, durably.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.tail())?;
        fs::create_dir_all(self.export())?;
        sync_dir(&self.root)?;
        self.root.parent().map_or(Ok(()), sync_dir)
    }

    /// A name for what is set aside that nothing has yet.
    pub fn damaged(&self) -> PathBuf {
        let names = (1..).map(|n: u32| self.root.join(format!("damaged-{n}")));
        names
            .into_iter()
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.root.join("damaged"))
    }

    /// An error of the system, on this directory.
    pub fn system(&self, what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let (dir, what) = (self.root.clone(), what.into());
        move |source| OpenError::System { dir, what, source }
    }

    /// Takes the lock that keeps other processes out, for as long as the file is open.
    pub fn lock(&self) -> Result<File, OpenError> {
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
