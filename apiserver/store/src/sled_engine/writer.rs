//! The one thread that writes: group commit.
//!
//! It takes whatever transactions are waiting, decides them in order, writes all of them in one
//! batch, syncs once, and only then tells the store and the committers. While it syncs, the next
//! batch gathers; so the more clients wait, the more share a sync. [`Pace`] sees to that where a sync is fast.
//!
//! Once a batch has failed nothing is known of the disk any more: the thread refuses every
//! transaction from then on and writes nothing, until the store is opened again and verified. What
//! was acknowledged is on disk, and the store's memory has nothing that is not.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::disk::Disk;
use super::garbage::Garbage;
use super::pace::Pace;
use super::rows::Meta;
use super::space;
use super::tail::Tail;
use crate::engine::{Change, Committer, Delivery, News, Refusal};
use crate::ledger::Ledger;
use crate::revision::Revision;
use crate::txn::Txn;

/// The most transactions of one batch.
const BATCH_TXNS: usize = 1024;

/// A batch takes no further transaction once it has this many bytes.
const BATCH_BYTES: usize = 8 << 20;

/// How many dead rows a batch removes beyond twice the number of its transactions, so that removal
/// keeps up with any rate of writes and never takes long.
const SWEEP_ROWS: usize = 64;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    /// Carry out a transaction.
    Commit {
        txn: Txn,
        committer: Committer,
        /// Its share of the bounded queue, given back when it is answered.
        permit: OwnedSemaphorePermit,
    },
    /// Finish what came before, and end.
    Stop,
}

/// What the writer and the engine's handle both see.
#[derive(Debug)]
pub(super) struct Shared {
    /// The newest revision on disk.
    pub durable: AtomicU64,
    /// The history's floor, as the store wants it.
    pub floor: AtomicU64,
    /// Why nothing is written any more.
    pub failure: Mutex<Option<String>>,
    /// Bytes in the tail since the last export.
    pub tail_bytes: AtomicU64,
    /// How many of them make an export due.
    pub export_after_bytes: AtomicU64,
    /// The newest revision that is missing in the tail, so that an export is due at once; or 0.
    pub tail_gap: AtomicU64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Writer {
    pub disk: Disk,
    pub ledger: Ledger,
    pub garbage: Garbage,
    pub tail: Tail,
    pub root: PathBuf,
    pub reserve_bytes: u64,
    pub shared: Arc<Shared>,
    pub requests: mpsc::UnboundedReceiver<Request>,
    pub events: mpsc::Sender<News>,
}

/// Transactions that go to disk together.
#[derive(Debug, Default)]
struct Batch {
    deliveries: Vec<Delivery>,
    /// Answers that change nothing, but must not overtake what they were decided on.
    answers: Vec<(Committer, Result<Arc<Change>, Refusal>)>,
    /// Held until the batch is answered.
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

// === impl Writer ===

impl Writer {
    /// Works until it is stopped, or nobody can ask any more.
    pub fn run(mut self) {
        let mut pace = Pace::default();
        while let Some(first) = self.requests.blocking_recv() {
            let pause = pace.pause(Instant::now());
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            let (waiting, stop) = self.gather(first);
            pace.began(Instant::now(), waiting.len());
            self.handle(waiting);
            if stop {
                break;
            }
        }
        self.disk.close();
    }

    /// What is waiting, as far as it fits a batch, and whether it ended in a stop.
    fn gather(&mut self, first: Request) -> (VecDeque<Request>, bool) {
        let mut waiting = VecDeque::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match &request {
                Request::Stop => return (waiting, true),
                Request::Commit { txn, .. } => bytes += txn.bytes(),
            }
            waiting.push_back(request);
            let room = waiting.len() < BATCH_TXNS && bytes < BATCH_BYTES;
            next = if room {
                self.requests.try_recv().ok()
            } else {
                None
            };
        }
        (waiting, false)
    }

    fn handle(&mut self, waiting: VecDeque<Request>) {
        let bytes: usize = waiting.iter().map(Request::bytes).sum();
        let refusal = self.refusal(bytes as u64);
        if let Some(why) = refusal {
            waiting.into_iter().for_each(|request| request.refuse(&why));
            return;
        }
        let mut batch = Batch::default();
        let now = SystemTime::now();
        for request in waiting {
            self.decide(request, now, &mut batch);
        }
        match self.write(&batch) {
            Ok(()) => self.acknowledge(batch),
            Err(why) => self.fail(batch, why),
        }
    }

    /// Why nothing can be written now.
    fn refusal(&self, bytes: u64) -> Option<String> {
        let failure = self.shared.failure.lock().clone();
        failure.or_else(|| space::shortage(&self.root, bytes, self.reserve_bytes))
    }

    fn decide(&mut self, request: Request, now: SystemTime, batch: &mut Batch) {
        let Request::Commit {
            txn,
            committer,
            permit,
        } = request
        else {
            return;
        };
        batch.permits.push(permit);
        batch.bytes += txn.bytes();
        match self.ledger.decide(&txn, now) {
            Ok(decision) => {
                self.garbage.note(&decision.change, &decision.replaced);
                let change = Arc::new(decision.change);
                if change.writes.is_empty() {
                    batch.answers.push((committer, Ok(change)));
                } else {
                    batch.deliveries.push(Delivery {
                        change,
                        committer: Some(committer),
                    });
                }
            }
            Err(refusal) => batch.answers.push((committer, Err(refusal))),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), String> {
        if batch.deliveries.is_empty() {
            return Ok(());
        }
        let floor = Revision(self.shared.floor.load(Ordering::Acquire));
        let meta = Meta {
            head: self.ledger.head(),
            floor,
            live: self.ledger.len() as u64,
        };
        let dead = self
            .garbage
            .take(floor, SWEEP_ROWS + 2 * batch.deliveries.len());
        self.disk
            .commit(batch.changes(), &dead, meta)
            .map_err(|error| error.to_string())?;
        self.shared.durable.store(meta.head.0, Ordering::Release);
        self.append_tail(batch);
        Ok(())
    }

    /// The tail is a second line: that it cannot be written is no reason not to acknowledge what
    /// is on disk, but one to make an export.
    fn append_tail(&mut self, batch: &Batch) {
        match self.tail.append(batch.changes()) {
            Ok(bytes) => {
                self.shared.tail_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(store = %self.root.display(), %error, "cannot write the tail");
                self.shared
                    .tail_gap
                    .fetch_max(self.ledger.head().0, Ordering::Relaxed);
            }
        }
    }

    fn acknowledge(&mut self, batch: Batch) {
        if !batch.deliveries.is_empty() {
            // The store may be gone already; what is on disk stays.
            let _ = self.events.blocking_send(News::Changes(batch.deliveries));
        }
        for (committer, answer) in batch.answers {
            let _ = committer.send(answer);
        }
    }

    fn fail(&mut self, batch: Batch, why: String) {
        let why = format!("{why}; restart once the cause is gone, what was acknowledged is safe");
        tracing::error!(store = %self.root.display(), %why, "the store takes no more writes");
        *self.shared.failure.lock() = Some(why.clone());
        let delivered = batch
            .deliveries
            .into_iter()
            .filter_map(|delivery| delivery.committer);
        let answered = batch.answers.into_iter().map(|(committer, _)| committer);
        for committer in delivered.chain(answered) {
            let _ = committer.send(Err(Refusal::Unavailable(why.clone())));
        }
    }
}

// === impl Request ===

impl Request {
    fn bytes(&self) -> usize {
        if let Self::Commit { txn, .. } = self {
            txn.bytes()
        } else {
            0
        }
    }

    fn refuse(self, why: &str) {
        if let Self::Commit { committer, .. } = self {
            let _ = committer.send(Err(Refusal::Unavailable(why.to_owned())));
        }
    }
}

// === impl Batch ===

impl Batch {
    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.deliveries
            .iter()
            .map(|delivery| delivery.change.as_ref())
    }
}
