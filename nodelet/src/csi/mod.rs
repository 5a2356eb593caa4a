//! Volumes of CSI drivers.
//!
//! ```text
//!   plugins_registry/ ──► registration ──► Drivers ──► csi_node ──► CSINode, Node's labels
//!                                             ▲
//!   kubelet API: /csi/DRIVER ─────────────────┤ (the way to the driver for the controllers)
//!                                             │
//!   a pod's volumes ──► mount ────────────────┤
//!   its end ──► unmount_pod ──────────────────┤──► the driver's socket
//!   a driver that comes ──► unmount::run ─────┘
//!                                │
//!                              Store (Ledger on disk) ──► Node's volumesInUse
//! ```
//!
//! [`layout`] says where things are, [`registration`] hears of drivers, [`driver`] is one that has
//! registered, [`csi_node`] tells the API of them. [`spec`] and [`request`] say purely what a volume
//! is and what a driver is asked for it; [`ledger`] is the pure record of what is staged and
//! published, [`store`] keeps it; [`mount`], [`expand`], [`unmount`] and [`stats`] ask the drivers.

pub mod csi_node;
pub mod driver;
pub mod expand;
pub mod layout;
pub mod ledger;
pub mod mount;
pub mod registration;
pub mod request;
pub mod spec;
pub mod stats;
pub mod store;
pub mod unmount;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use self::driver::Registered;
use self::layout::Layout;
use self::store::Store;

/// What a node has of CSI.
pub struct Csi {
    /// The drivers.
    pub drivers: Arc<Drivers>,
    /// What they were asked to do.
    pub store: Arc<Store>,
    /// What they told of volumes lately.
    pub stats: stats::Cache,
    /// Woken when something may be let go of.
    wake: Notify,
    /// Whether the API has said which pods there are.
    listed: AtomicBool,
}

/// The drivers of a node.
pub struct Drivers {
    /// Where things are.
    pub layout: Layout,
    registered: RwLock<BTreeMap<String, Arc<Registered>>>,
    /// Told of each change; whether every socket of the registry has answered.
    settled: watch::Sender<bool>,
}

// === impl Csi ===

impl Csi {
    /// What the node of this folder has.
    pub fn open(root: &Path) -> Self {
        Self {
            drivers: Arc::new(Drivers::new(Layout::new(root.to_owned()))),
            store: Arc::new(Store::open(root)),
            stats: stats::Cache::default(),
            wake: Notify::new(),
            listed: AtomicBool::new(false),
        }
    }

    /// The table of pods is complete: what is held for others may go.
    pub fn listed(&self) {
        self.listed.store(true, Ordering::Release);
        self.wake.notify_one();
    }
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

    /// The driver of a name, waited for if it is not there yet.
    pub async fn wait(&self, name: &str, limit: Duration) -> Result<Arc<Registered>, String> {
        let mut changes = self.changes();
        let waiting = async {
            while self.get(name).is_err() {
                // The sender lives as long as this.
                let _ = changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(limit, waiting).await;
        self.get(name)
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
