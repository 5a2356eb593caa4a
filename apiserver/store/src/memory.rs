//! An engine that keeps nothing: for tests of what stands on the store, and for simulation.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::engine::{Change, Delivery, EVENT_BATCHES, Engine, EngineError, Loaded, News, Refusal};
use crate::ledger::Ledger;
use crate::revision::Revision;
use crate::txn::Txn;

/// An engine in memory. What it holds is gone with it.
#[derive(Debug)]
pub struct MemoryEngine {
    /// Held while an event is handed over, so that events leave in the order of their revisions.
    writer: AsyncMutex<Writer>,
    events: Mutex<Option<mpsc::Receiver<News>>>,
}

#[derive(Debug)]
struct Writer {
    ledger: Ledger,
    /// Gone once the engine is closed.
    events: Option<mpsc::Sender<News>>,
}

// === impl MemoryEngine ===

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(EVENT_BATCHES);
        let writer = Writer {
            ledger: Ledger::at(Revision::ZERO),
            events: Some(sender),
        };
        Self {
            writer: AsyncMutex::new(writer),
            events: Mutex::new(Some(receiver)),
        }
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn load(&self) -> Result<Loaded, EngineError> {
        Ok(Loaded::default())
    }

    fn events(&self, _from: Revision) -> Result<mpsc::Receiver<News>, EngineError> {
        self.events.lock().take().ok_or(EngineError::Taken)
    }

    async fn commit(&self, txn: Txn) -> Result<Arc<Change>, Refusal> {
        let mut writer = self.writer.lock().await;
        // A place in the channel first: a commit that is dropped while it waits has done nothing.
        let events = writer.events.clone().ok_or(Refusal::Closed)?;
        let place = events.reserve().await.map_err(|_| Refusal::Closed)?;
        let change = Arc::new(writer.ledger.decide(&txn, SystemTime::now())?.change);
        if change.writes.is_empty() {
            return Ok(change);
        }
        let (committer, outcome) = oneshot::channel();
        place.send(News::Changes(vec![Delivery {
            change,
            committer: Some(committer),
        }]));
        drop(writer);
        outcome.await.unwrap_or(Err(Refusal::Closed))
    }

    async fn fence(&self) -> Result<Revision, EngineError> {
        Ok(self.writer.lock().await.ledger.head())
    }

    fn compact(&self, _floor: Revision) {}

    async fn close(&self) {
        self.writer.lock().await.events = None;
    }
}
