//! The embedded engine: one server's store, in sled.
//!
//! ```text
//!   commit --bounded queue--> writer thread: decide -> database + sync -> tail --> events, answers
//!                                             (ledger)   (disk, rows)   (tail)
//! ```
//!
//! [`recover`] opens the directory and says what it had to do; [`mod@restore`] makes one of a backup; [`scan`] verifies what is there;
//! [`garbage`] is what may go from the database; [`space`] keeps the disk from filling up; [`pace`] lets
//! dense commits share a batch.

mod disk;
mod garbage;
mod layout;
mod pace;
mod recover;
mod report;
mod restore;
mod rows;
mod scan;
mod space;
mod tail;
mod writer;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use report::{OpenError, Recovery, RestoreError};
pub use restore::restore;

use crate::engine::{Change, EVENT_BATCHES, Engine, EngineError, Loaded, News, Refusal};
use crate::export;
use crate::revision::Revision;
use crate::txn::Txn;
use layout::Layout;
use recover::Opened;
use tail::Tail;
use writer::{Request, Shared, Writer};

/// How a store is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SledConfig {
    /// The store's directory. It is created if it is missing.
    pub dir: PathBuf,
    /// What must remain free on its disk for a write to be taken. With 0 the disk is not asked, and
    /// once it is full the store takes no writes until it is opened again.
    pub reserve_bytes: u64,
    /// An export is made when the changes since the last one take this many bytes, or as many as
    /// that export, whichever is more.
    pub export_after_bytes: u64,
}

/// The bytes that may wait to be written. At the bound committers wait for room.
const QUEUE_BYTES: usize = 64 << 20;

/// How the queue is counted: a transaction takes at least this, so their number is bounded too.
const QUEUE_UNIT_BYTES: usize = 1 << 10;

/// How long to wait for the database to be closed. After a failed write it may never be, until
/// the process ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Exports that are kept. Two, so that one that cannot be read is no disaster.
const EXPORTS_KEPT: usize = 2;

/// See the module's head.
#[derive(Debug)]
pub struct SledEngine {
    layout: Layout,
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    room: Arc<Semaphore>,
    loaded: Mutex<Option<Loaded>>,
    events: Mutex<Option<mpsc::Receiver<News>>>,
    export_after_bytes: u64,
    recovery: Option<Recovery>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

// === impl SledConfig ===

impl SledConfig {
    /// The usual configuration for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            reserve_bytes: 32 << 20,
            export_after_bytes: 8 << 20,
        }
    }
}

// === impl SledEngine ===

impl SledEngine {
    /// Opens the store in `config.dir`, restoring it if it must be: see [`SledEngine::recovery`].
    /// Reads and verifies everything, so call it where blocking is allowed.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the directory, and the remedy.
    pub fn open(config: SledConfig) -> Result<Self, OpenError> {
        let SledConfig {
            dir,
            reserve_bytes,
            export_after_bytes,
        } = config;
        let layout = Layout { root: dir };
        let Opened {
            disk,
            scan,
            recovery,
            covered,
            lock,
        } = recover::open(&layout)?;
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(scan.meta.head.0),
            floor: AtomicU64::new(scan.meta.floor.0),
            failure: Mutex::new(None),
            tail_bytes: AtomicU64::new(0),
            export_after_bytes: AtomicU64::new(export_after_bytes),
            tail_gap: AtomicU64::new(if covered { 0 } else { scan.meta.head.0 }),
        });
        let (requests, request_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::channel(EVENT_BATCHES);
        let writer = Writer {
            disk,
            ledger: scan.ledger,
            garbage: scan.garbage,
            tail: Tail::new(&layout.tail()),
            root: layout.root.clone(),
            reserve_bytes,
            shared: shared.clone(),
            requests: request_receiver,
            events: event_sender,
        };
        let thread = start(writer, lock).map_err(|source| OpenError::System {
            dir: layout.root.clone(),
            what: "cannot start its thread".to_owned(),
            source,
        })?;
        Ok(Self {
            layout,
            shared,
            requests,
            room: Arc::new(Semaphore::new(QUEUE_BYTES / QUEUE_UNIT_BYTES)),
            loaded: Mutex::new(Some(scan.loaded)),
            events: Mutex::new(Some(events)),
            export_after_bytes,
            recovery,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What had to be done to open the store, if anything.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    fn tidy_exports(&self) -> std::io::Result<()> {
        let mut exports = export::list(&self.layout.export())?;
        let newest = exports.split_off(exports.len().saturating_sub(EXPORTS_KEPT));
        exports
            .iter()
            .try_for_each(|(_, path)| fs::remove_file(path))?;
        if let Some((_, path)) = newest.last() {
            let bytes = fs::metadata(path)?.len();
            let due = self.export_after_bytes.max(bytes);
            self.shared.export_after_bytes.store(due, Ordering::Relaxed);
        }
        // With one export only, what came before it still needs the tail from its beginning.
        match newest.first() {
            Some((oldest, _)) if newest.len() == EXPORTS_KEPT => {
                tail::prune(&self.layout.tail(), *oldest)
            }
            _ => Ok(()),
        }
    }
}

/// Starts the writer on its thread. The lock on the directory lives as long as the database.
fn start(writer: Writer, lock: File) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || {
            writer.run();
            drop(lock);
        })
}

#[async_trait]
impl Engine for SledEngine {
    async fn load(&self) -> Result<Loaded, EngineError> {
        self.loaded.lock().take().ok_or(EngineError::Taken)
    }

    fn events(&self, _from: Revision) -> Result<mpsc::Receiver<News>, EngineError> {
        self.events.lock().take().ok_or(EngineError::Taken)
    }

    async fn commit(&self, txn: Txn) -> Result<Arc<Change>, Refusal> {
        let units = txn.bytes().div_ceil(QUEUE_UNIT_BYTES).max(1);
        // A transaction is bounded well below the queue, so its units fit.
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(units).await;
        let permit = permit.map_err(|_| Refusal::Closed)?;
        let (committer, answer) = oneshot::channel();
        let request = Request::Commit {
            txn,
            committer,
            permit,
        };
        self.requests.send(request).map_err(|_| Refusal::Closed)?;
        answer.await.unwrap_or(Err(Refusal::Closed))
    }

    async fn fence(&self) -> Result<Revision, EngineError> {
        Ok(Revision(self.shared.durable.load(Ordering::Acquire)))
    }

    fn compact(&self, floor: Revision) {
        self.shared.floor.fetch_max(floor.0, Ordering::AcqRel);
    }

    fn export_due(&self) -> Option<PathBuf> {
        let bytes = self.shared.tail_bytes.load(Ordering::Relaxed);
        let due = bytes >= self.shared.export_after_bytes.load(Ordering::Relaxed)
            || self.shared.tail_gap.load(Ordering::Relaxed) > 0;
        due.then(|| self.layout.export())
    }

    fn exported(&self, revision: Revision) {
        self.shared.tail_bytes.store(0, Ordering::Relaxed);
        let closed = |gap| (gap <= revision.0).then_some(0);
        let _ = self
            .shared
            .tail_gap
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, closed);
        if let Err(error) = self.tidy_exports() {
            tracing::warn!(store = %self.layout.root.display(), %error, "cannot tidy exports");
        }
    }

    async fn close(&self) {
        self.room.close();
        let _ = self.requests.send(Request::Stop);
        let thread = self.thread.lock().take();
        let Some(thread) = thread else { return };
        // Joining blocks, for as long as the last batch takes.
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE_TIMEOUT, joined).await.is_err() {
            tracing::warn!(store = %self.layout.root.display(), "the database does not close");
        }
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        // The thread ends by itself. Nobody may wait for it here: a drop can be in async code.
        let _ = self.requests.send(Request::Stop);
    }
}
