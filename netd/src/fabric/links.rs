//! Tells the kernel's tables which links lead to BGP neighbours: there packets keep their pods'
//! addresses, or have the node's own (see [`crate::nat`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::nat::FabricLinks;
use crate::tasks::Shared;

/// How long after the kernel refused it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the tables told.
pub struct LinkKeeper {
    shared: Arc<Shared>,
    told: Option<FabricLinks>,
    /// When to try again what failed.
    again: Option<Instant>,
}

/// The links on which pods keep their addresses are those of neighbours that learn of the blocks.
pub fn fabric_links(neighbors: &BTreeSet<String>, blocks_announced: bool) -> FabricLinks {
    let kept = match blocks_announced {
        true => neighbors.clone(),
        false => BTreeSet::new(),
    };
    FabricLinks {
        all: neighbors.clone(),
        kept,
    }
}

// === impl LinkKeeper ===

impl LinkKeeper {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            told: None,
            again: None,
        }
    }

    /// Waits until what failed is to be tried again; for ever if nothing did.
    pub async fn due(&self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Makes the tables say this, unless they do.
    pub async fn keep(&mut self, wanted: FabricLinks) {
        if self.told.as_ref() == Some(&wanted) {
            return;
        }
        let (nat, links) = (self.shared.nat.clone(), wanted.clone());
        let write = move || nat.lock().set_fabric_links(&links);
        self.again = None;
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {
                tracing::info!(all = ?wanted.all, kept = ?wanted.kept, "links to BGP neighbours");
                self.told = Some(wanted);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot note the links to BGP neighbours; trying again");
                self.told = None;
                self.again = Some(Instant::now() + AGAIN);
            }
            // The runtime ends, and this task with it.
            Err(_) => {}
        }
    }
}
