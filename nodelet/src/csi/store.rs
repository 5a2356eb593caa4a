//! The [`Ledger`] on disk, and who may work on which volume.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

use super::ledger::{Ledger, Volume};
use crate::whole_file::write_json_durably;

/// The record, below the node's folder.
const FILE: &str = "csi-volumes.json";

type Turn = tokio::sync::Mutex<()>;

/// The record of what is staged and published.
pub struct Store {
    path: PathBuf,
    ledger: Mutex<Ledger>,
    turns: Mutex<HashMap<Volume, Weak<Turn>>>,
    in_use: watch::Sender<BTreeSet<String>>,
}

// === impl Store ===

impl Store {
    /// Reads the record of a node.
    pub fn open(root: &Path) -> Self {
        let path = root.join(FILE);
        let ledger: Ledger = read(&path).unwrap_or_default();
        Self {
            in_use: watch::Sender::new(ledger.in_use()),
            path,
            ledger: Mutex::new(ledger),
            turns: Mutex::default(),
        }
    }

    /// Waits until nobody works on a volume; until the guard is dropped nobody else will. Others'
    /// volumes are not waited for.
    pub async fn turn(&self, volume: &Volume) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            match turns.get(volume).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    turns.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::new(Turn::default());
                    turns.insert(volume.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }

    /// Looks into the record.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock())
    }

    /// Changes the record, here and on disk; what was not changed is not written.
    ///
    /// # Errors
    /// What `change` refused with, or how the record could not be written: then it is as before.
    pub async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || store.change_now(change)).await;
        done.map_err(|error| error.to_string())?
    }

    fn change_now(
        &self,
        change: impl FnOnce(&mut Ledger) -> Result<(), String>,
    ) -> Result<(), String> {
        // Held while it is written, so that an older state never replaces a newer one.
        let mut ledger = self.ledger.lock();
        let mut changed = ledger.clone();
        change(&mut changed)?;
        if changed == *ledger {
            return Ok(());
        }
        write_json_durably(&self.path, &changed)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        *ledger = changed;
        let in_use = ledger.in_use();
        self.in_use.send_if_modified(|known| {
            let news = *known != in_use;
            *known = in_use;
            news
        });
        Ok(())
    }

    /// The attached volumes that are in use, as they stand in a Node's status.
    pub fn in_use(&self) -> watch::Receiver<BTreeSet<String>> {
        self.in_use.subscribe()
    }
}

fn read(path: &Path) -> Option<Ledger> {
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "what is mounted of CSI volumes is not known");
            None
        }
    }
}
