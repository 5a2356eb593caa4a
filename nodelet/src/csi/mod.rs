//! Volumes of CSI drivers.
//!
//! ```text
//!   plugins_registry/ ──► registration ──► Drivers ──► csi_node ──► CSINode, Node's labels
//!                                             ▲
//!   kubelet API: /csi/DRIVER ─────────────────┘ (the way to the driver for the controllers)
//! ```
//!
//! [`layout`] says where things are, [`registration`] hears of drivers, [`driver`] is one that has
//! registered, [`csi_node`] tells the API of them.

pub mod csi_node;
pub mod driver;
pub mod layout;
pub mod registration;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use self::driver::Registered;
use self::layout::Layout;

/// The drivers of a node.
pub struct Drivers {
    /// Where things are.
    pub layout: Layout,
    registered: RwLock<BTreeMap<String, Arc<Registered>>>,
    /// Told of each change; whether every socket of the registry has answered.
    settled: watch::Sender<bool>,
}

// === impl Drivers ===

impl Drivers {
    /// No driver yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            registered: RwLock::default(),
            settled: watch::Sender::new(false),
        }
    }

    /// The driver of a name; the sentence for when it is not there.
    pub fn get(&self, name: &str) -> Result<Arc<Registered>, String> {
        let found = self.registered.read().get(name).cloned();
        found.ok_or_else(|| {
            format!("driver name {name} not found in the list of registered CSI drivers")
        })
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, Arc<Registered>> {
        self.registered.read().clone()
    }

    /// Hears of each change: of the drivers, and of whether every socket of the registry has
    /// answered, which is the value.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    fn add(&self, name: &str, registered: Arc<Registered>) {
        self.registered.write().insert(name.to_owned(), registered);
        self.settled.send_modify(|_| {});
    }

    /// Takes a driver out, unless another has come in its place.
    fn remove(&self, name: &str, registered: &Arc<Registered>) {
        let mut all = self.registered.write();
        if all
            .get(name)
            .is_some_and(|other| Arc::ptr_eq(other, registered))
        {
            all.remove(name);
            drop(all);
            self.settled.send_modify(|_| {});
        }
    }

    fn settle(&self, settled: bool) {
        self.settled.send_if_modified(|known| {
            let changed = *known != settled;
            *known = settled;
            changed
        });
    }
}

/// Sleeps for so long; for ever without a time.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
