//! The seam between the store and what makes it durable.
//!
//! An engine decides transactions, orders them, gives each its revision and makes it durable. The
//! store's memory is built from [`Engine::load`] and then changes only by applying the engine's
//! ordered events, those of its own commits included. So a store over an embedded engine and one
//! of several stores over a shared, remote engine are the same code.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::key::Key;
use crate::revision::Revision;
use crate::txn::Txn;

/// How many batches of events an engine may be ahead of its store's memory. At the bound the
/// engine waits, and so do its committers.
pub const EVENT_BATCHES: usize = 64;

/// A stored value with what the store must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub key: Key,
    /// The finished value, its revision filled in.
    pub value: Bytes,
    /// Where in the value the decimal revision begins, if it contains one.
    pub revision_at: Option<u32>,
    /// The revision at which the key came to be (again, if it had been deleted).
    pub created: Revision,
    /// The revision that wrote this value.
    pub modified: Revision,
}

/// What a transaction did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A value was put.
    Put(Record),
    /// The entry was deleted.
    Delete(Key),
}

/// All that one transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its revision. A transaction that wrote nothing carries the revision that it was decided at.
    pub revision: Revision,
    /// When it was decided, by the engine's clock.
    pub time: SystemTime,
    /// Its writes, in the order of its operations; operations that changed nothing are left out.
    pub writes: Vec<Write>,
}

/// A change on its way to the store's memory.
#[derive(Debug)]
pub struct Delivery {
    /// What happened.
    pub change: Arc<Change>,
    /// Who waits for it, if it is this store's own commit and the engine knows. The store answers
    /// once it has applied the change, which spares the committer a second wake-up.
    pub committer: Option<Committer>,
}

/// What an engine tells its store's memory.
#[derive(Debug)]
pub enum News {
    /// What happened next, whole and in order.
    Changes(Vec<Delivery>),
    /// Everything as it is now: what happened since the last change is no longer known in part.
    /// Watches cannot go on over it.
    Anew(Loaded),
}

/// Where the outcome of a commit goes.
pub type Committer = oneshot::Sender<Result<Arc<Change>, Refusal>>;

/// What an engine holds when it is opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The oldest revision that can be read back. Watches can begin after it.
    pub floor: Revision,
    /// Every entry as of `floor`, in any order.
    pub base: Vec<Record>,
    /// Every change after `floor`, in order.
    pub recent: Vec<Change>,
    /// The newest revision: that of the last of `recent`, or at least `floor`.
    pub revision: Revision,
}

/// Why a transaction was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The comparison of `key` did not hold at revision `at`. Nothing was changed.
    #[error("{key} was not as the transaction required at revision {at}")]
    Conflict {
        /// The first key whose comparison failed.
        key: Key,
        /// The revision at which it was looked at.
        at: Revision,
    },
    /// The engine takes no writes; reads go on. If the transaction was already under way its
    /// outcome is unknown: it may be there after the next start.
    #[error("the store takes no writes: {0}")]
    Unavailable(String),
    /// It is larger than what the engine takes. Nothing was changed.
    #[error("{0}")]
    TooLarge(String),
    /// The transaction was sent and not answered: it may have happened, and may still happen.
    #[error("the outcome of a write is unknown: {0}")]
    Unknown(String),
    /// The engine is shutting down, or gone.
    #[error("the store is closed")]
    Closed,
}

/// Why an engine cannot be opened or read.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Its content was already handed out: an engine serves one store.
    #[error("the engine already serves a store; open one store and clone its handle")]
    Taken,
    /// The engine is shutting down, or gone.
    #[error("the engine is closed")]
    Closed,
    /// Whatever the engine itself met.
    #[error("{0}")]
    Failed(String),
}

/// What decides, orders and keeps transactions. See the module's head for the contract.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Everything that the engine holds. Called once, before [`Engine::events`].
    ///
    /// # Errors
    /// [`EngineError`] when it cannot be read or was already handed out.
    async fn load(&self) -> Result<Loaded, EngineError>;

    /// The changes after `from` (the revision that `load` ended at), in order, in batches that
    /// became durable together. It ends when the engine is closed.
    ///
    /// # Errors
    /// [`EngineError::Taken`] when asked a second time.
    fn events(&self, from: Revision) -> Result<mpsc::Receiver<News>, EngineError>;

    /// Carries out a [valid](Txn::validate) transaction and returns once it is durable.
    ///
    /// # Errors
    /// [`Refusal`] says why it did not happen.
    async fn commit(&self, txn: Txn) -> Result<Arc<Change>, Refusal>;

    /// The newest durable revision, no older than any commit acknowledged before the call, to
    /// whichever store of the engine.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot be reached.
    async fn fence(&self) -> Result<Revision, EngineError>;

    /// Lets the engine forget what can only be read at revisions before `floor`. It may do so
    /// later, and keeps the newest entry of every key.
    fn compact(&self, floor: Revision);

    /// The directory into which a copy of everything should be [exported](crate::export) now, if
    /// the engine wants one. Asked after every batch.
    fn export_due(&self) -> Option<PathBuf> {
        None
    }

    /// Tells that such a copy, of everything at `revision`, is on disk, so that what the engine kept for
    /// recovery from older ones may go.
    fn exported(&self, revision: Revision) {
        let _ = revision;
    }

    /// Finishes what was asked for, and releases what it holds. Commits are refused from now on.
    async fn close(&self);
}

// === impl Write ===

impl Write {
    /// The key that was written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(record) => &record.key,
            Self::Delete(key) => key,
        }
    }
}
