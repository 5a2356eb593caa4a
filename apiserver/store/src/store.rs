//! The store: the front that everything above uses.
//!
//! ```text
//!   commit ------> Engine (decides, orders, makes durable) --events--> applier task
//!      ^                                                                   | publish
//!      +---- answered once durable and applied ---- committer <------------+
//!                                                                          v
//!   snapshot, at, watch <---------------------------------------- Feed: world, history, hub
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Change, Delivery, Engine, EngineError, Loaded, News, Refusal, Write};
use crate::entry::{Describe, Entry, Meta};
use crate::export::ExportError;
use crate::exporter;
use crate::history::{Compacted, History, HistoryLimits};
use crate::key::{Key, Resource};
use crate::revision::Revision;
use crate::txn::{BadTxn, Txn};
use crate::watch::{Feed, Interest, Watch, WatchError};
use crate::world::{Snapshot, World};

/// How many changes are applied before other tasks get their turn.
const APPLY_AT_ONCE: usize = 64;

/// What bounds a store's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How much of the past is kept.
    pub history: HistoryLimits,
    /// How many unread events a watch holds by itself before it goes back to read the history.
    pub watch_queue: usize,
    /// How many watches may be open.
    pub watches: usize,
}

/// A revisioned map with transactions, snapshots and watches over a durable engine.
///
/// A handle: clones are the same store, which ends with the last of them.
#[derive(Debug)]
pub struct Store<M: Meta> {
    inner: Arc<Inner<M>>,
}

#[derive(Debug)]
struct Inner<M: Meta> {
    engine: Arc<dyn Engine>,
    feed: Arc<Feed<M>>,
    applied: watch::Receiver<Revision>,
    _applier: AbortOnDropHandle<()>,
    exporter: AsyncMutex<AbortOnDropHandle<()>>,
    /// Stops the exporter.
    closing: CancellationToken,
}

/// Everything that a store holds at one revision. Taking it costs nothing; it stays as it is.
#[derive(Debug)]
pub struct Image<M: Meta>(Arc<World<M>>);

/// A transaction that happened: durable, and seen by every read that begins from now on.
#[derive(Debug, Clone)]
pub struct Committed {
    change: Arc<Change>,
}

/// Why a transaction did not happen.
#[derive(Debug, Error)]
pub enum CommitError<M> {
    /// A comparison did not hold.
    #[error("{key} was not as the transaction required; it is at {}", revision_of(.present))]
    Conflict {
        /// The first key whose comparison failed.
        key: Key,
        /// What stands there now. It may be newer than what was compared, never older.
        present: Option<Arc<Entry<M>>>,
    },
    /// The transaction could not happen in any state.
    #[error(transparent)]
    Bad(#[from] BadTxn),
    /// The store takes no writes. Unless it did so before, the outcome of this one is unknown.
    #[error("the store takes no writes: {0}")]
    Unavailable(String),
    /// It is larger than what the engine takes.
    #[error("{0}")]
    TooLarge(String),
    /// The transaction was sent and not answered: it may have happened, and may still happen.
    #[error("the outcome of the write is unknown: {0}; read before you write again")]
    Unknown(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a past state cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AtError {
    /// It is no longer known.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// It is not known yet.
    #[error("revision {asked} is in the future: the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest there is.
        newest: Revision,
    },
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            history: HistoryLimits::default(),
            watch_queue: 256,
            watches: 1 << 16,
        }
    }
}

// === impl Committed ===

impl Committed {
    /// The revision of all its writes. A transaction without effect has that of the state it saw.
    pub fn revision(&self) -> Revision {
        self.change.revision
    }

    /// The finished value that it put at `key`.
    pub fn value(&self, key: &Key) -> Option<&Bytes> {
        self.change.writes.iter().find_map(|write| match write {
            Write::Put(record) if record.key == *key => Some(&record.value),
            _ => None,
        })
    }
}

// === impl Image ===

impl<M: Meta> Image<M> {
    /// The revision that it stands for.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// Writes it as an export, entry by entry. Blocks as `out` does.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_to(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let entries = self.0.entries().map(|entry| entry.record());
        crate::export::write_to(out, self.0.revision, self.0.len(), entries)
    }
}

// === impl Store ===

impl<M: Meta> Store<M> {
    /// Opens a store over `engine`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot be read or already serves a store.
    pub async fn open(
        engine: Arc<dyn Engine>,
        describe: Arc<dyn Describe<M>>,
        limits: Limits,
    ) -> Result<Self, EngineError> {
        let loaded = engine.load().await?;
        let revision = loaded.revision;
        let events = engine.events(revision)?;
        let feed = Arc::new(restore(loaded, limits, describe));
        let (applied, receiver) = watch::channel(revision);
        let due = Arc::new(Notify::new());
        let applier = apply(engine.clone(), events, feed.clone(), applied, due.clone());
        let closing = CancellationToken::new();
        let exporter = exporter::run(engine.clone(), feed.clone(), due, closing.clone());
        let [applier, exporter] =
            [tokio::spawn(applier), tokio::spawn(exporter)].map(AbortOnDropHandle::new);
        let store = Self {
            inner: Arc::new(Inner {
                engine,
                feed,
                applied: receiver,
                _applier: applier,
                exporter: AsyncMutex::new(exporter),
                closing,
            }),
        };
        // A shared engine may have loaded the past, to replay what follows.
        store.fence().await?;
        Ok(store)
    }

    /// Ends when the engine has ended, because it was closed or cannot go on: nothing new will be
    /// seen here.
    pub async fn ended(&self) {
        let mut applied = self.inner.applied.clone();
        while applied.changed().await.is_ok() {}
    }

    /// The newest revision that has been applied.
    pub fn revision(&self) -> Revision {
        *self.inner.applied.borrow()
    }

    /// `resource` as it is now. O(1), without a lock.
    pub fn snapshot(&self, resource: &Resource) -> Snapshot<M> {
        self.inner.feed.snapshot(resource)
    }

    /// The entry at `key` as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry<M>>> {
        self.inner.feed.world().get(key).cloned()
    }

    /// `resource` as it was at `revision`. Costs what has changed since.
    ///
    /// # Errors
    /// [`AtError`] when `revision` is too old or yet to come.
    pub fn at(&self, resource: &Resource, revision: Revision) -> Result<Snapshot<M>, AtError> {
        let newest = self.revision();
        if revision > newest {
            return Err(AtError::Future {
                asked: revision,
                newest,
            });
        }
        Ok(self.inner.feed.at(resource, revision)?)
    }

    /// The newest revision at or before `time`.
    ///
    /// # Errors
    /// [`Compacted`] when that is no longer known.
    pub fn revision_at(&self, time: SystemTime) -> Result<Revision, Compacted> {
        self.inner.feed.revision_at(time)
    }

    /// Carries out `txn` and returns once it is durable and every new read sees it.
    ///
    /// Dropping the future does not undo the transaction: it may happen or not.
    ///
    /// # Errors
    /// [`CommitError`] says why it did not happen.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, CommitError<M>> {
        txn.validate()?;
        match self.inner.engine.commit(txn).await {
            Ok(change) => {
                self.applied(change.revision)
                    .await
                    .map_err(|_| CommitError::Closed)?;
                Ok(Committed { change })
            }
            Err(Refusal::Conflict { key, at }) => {
                self.applied(at).await.map_err(|_| CommitError::Closed)?;
                let present = self.get(&key);
                Err(CommitError::Conflict { key, present })
            }
            Err(Refusal::Unavailable(why)) => Err(CommitError::Unavailable(why)),
            Err(Refusal::TooLarge(why)) => Err(CommitError::TooLarge(why)),
            Err(Refusal::Unknown(why)) => Err(CommitError::Unknown(why)),
            Err(Refusal::Closed) => Err(CommitError::Closed),
        }
    }

    /// Every event that `interest` matches after `from`, which may be in the future.
    ///
    /// To see everything from now on: take a snapshot, and watch from its revision.
    ///
    /// # Errors
    /// [`WatchError`] when `from` is too old, or there are too many watches.
    pub fn watch(&self, interest: Interest, from: Revision) -> Result<Watch<M>, WatchError> {
        let watcher = self.inner.feed.watch(interest, from)?;
        Ok(Watch::new(self.inner.feed.clone(), watcher))
    }

    /// Waits until every write that anyone was acknowledged before the call is applied here, and
    /// returns the revision: what a consistent read waits for.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot be reached.
    pub async fn fence(&self) -> Result<Revision, EngineError> {
        let newest = self.inner.engine.fence().await?;
        self.applied(newest).await
    }

    /// Waits until `revision` is applied, and returns the newest that is.
    ///
    /// # Errors
    /// [`EngineError::Closed`] when the store closes before.
    pub async fn applied(&self, revision: Revision) -> Result<Revision, EngineError> {
        let newest = self.revision();
        if newest >= revision {
            return Ok(newest);
        }
        let mut applied = self.inner.applied.clone();
        let reached = applied.wait_for(|newest| *newest >= revision).await;
        reached
            .map(|newest| *newest)
            .map_err(|_| EngineError::Closed)
    }

    /// Forgets the past up to `floor` (at most up to now). What is present stays. Returns the
    /// oldest revision that can be read from now on.
    pub fn compact(&self, floor: Revision) -> Revision {
        let floor = self.inner.feed.compact(floor);
        self.inner.engine.compact(floor);
        floor
    }

    /// The oldest revision that can be read, and that a watch can start from.
    pub fn oldest(&self) -> Revision {
        self.inner.feed.floor()
    }

    /// Writes a copy of everything as it is now to `path`, for keeping, and returns its revision.
    ///
    /// # Errors
    /// [`ExportError`] when the file cannot be written; there is none then.
    pub async fn export(&self, path: PathBuf) -> Result<Revision, ExportError> {
        exporter::write(self.inner.feed.world(), path).await
    }

    /// Everything as it is now, to be written out as an [export](crate::export).
    pub fn image(&self) -> Image<M> {
        Image(self.inner.feed.world())
    }

    /// Finishes the commits that wait and closes the engine's files. From then on commits are
    /// refused and watches end; reads go on.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.engine.close().await;
        let mut exporter = self.inner.exporter.lock().await;
        if !exporter.is_finished() {
            // Only a panic could be told here, and it has been.
            let _ = (&mut *exporter).await;
        }
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.inner.feed.watches()
    }
}

impl<M: Meta> Clone for Store<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<M: Meta> Drop for Inner<M> {
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// Builds the memory of a store from what its engine holds.
fn restore<M: Meta>(loaded: Loaded, limits: Limits, describe: Arc<dyn Describe<M>>) -> Feed<M> {
    let mut world = World::of(&loaded.base, describe.as_ref());
    let mut history = History::after(loaded.floor);
    for change in &loaded.recent {
        for event in world.apply(change, describe.as_ref()) {
            history.push(event);
        }
    }
    world.revision = loaded.revision;
    Feed::new(world, history, limits, describe)
}

/// Applies what the engine tells, until it closes.
async fn apply<M: Meta>(
    engine: Arc<dyn Engine>,
    mut events: mpsc::Receiver<News>,
    feed: Arc<Feed<M>>,
    applied: watch::Sender<Revision>,
    export_due: Arc<Notify>,
) {
    while let Some(news) = events.recv().await {
        let mut batch = match news {
            News::Changes(batch) => batch,
            News::Anew(loaded) => {
                feed.renew(&loaded);
                applied.send_modify(|newest| *newest = loaded.revision);
                continue;
            }
        };
        while !batch.is_empty() {
            let later = batch.split_off(batch.len().min(APPLY_AT_ONCE));
            let now = std::mem::replace(&mut batch, later);
            apply_some(now, engine.as_ref(), &feed, &applied);
            if engine.export_due().is_some() {
                export_due.notify_one();
            }
            tokio::task::yield_now().await;
        }
    }
    feed.close();
}

fn apply_some<M: Meta>(
    batch: Vec<Delivery>,
    engine: &dyn Engine,
    feed: &Feed<M>,
    applied: &watch::Sender<Revision>,
) {
    let changes = batch.iter().map(|delivery| delivery.change.as_ref());
    if let Some(floor) = feed.publish(changes, SystemTime::now()) {
        engine.compact(floor);
    }
    applied.send_modify(|newest| {
        *newest = batch
            .last()
            .map_or(*newest, |delivery| delivery.change.revision);
    });
    for Delivery { change, committer } in batch {
        // A committer that is gone does not want to know.
        let _ = committer.map(|committer| committer.send(Ok(change)));
    }
}

fn revision_of<M>(present: &Option<Arc<Entry<M>>>) -> String {
    present
        .as_ref()
        .map_or("no revision: absent".to_owned(), |e| {
            format!("revision {}", e.modified)
        })
}
