//! What is told of the opening of a store: why it failed, or what it took.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::export::ExportError;
use crate::revision::Revision;

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
    /// It was written by a newer release.
    #[error(
        "the store {} has format {format}, which this release does not know: \
         start the release that wrote it, or a newer one",
        dir.display()
    )]
    Newer {
        /// The store's directory.
        dir: PathBuf,
        /// Its format.
        format: u32,
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

/// Why a backup cannot be restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup cannot be read, or is damaged.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// There are objects already.
    #[error(
        "the store {0} is not empty, and a backup is restored into an empty one only; \
         move it away, or restore elsewhere"
    )]
    NotEmpty(String),
    /// The place cannot be written to.
    #[error(transparent)]
    Place(#[from] OpenError),
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
