//! Containers: their images and file systems by containerd (its content and snapshot services, no
//! CRI), their processes by Peapod's own shim or by containerd's. No pause container.
//!
//! ```text
//!               Containerd (the Runtime trait)
//!      +-----------+------+-----+------------+-----------+
//!   sandbox     container     task        exec, attach  images (crate::images)
//!   namespaces  file system   start,      streams       blobs, layers
//!   and /dev/   and record    signal,     over fifos
//!   shm         (create,      settle, remove
//!               list)           |
//!                             tasks: by_shim <--- shim_events: ends
//!                                    by_containerd <--- events: exits and OOMs
//! ```
//!
//! [`tasks`] is what both shims can do: [`peapod_shim`], one process for the node, and containerd's runc
//! shim, one for each pod. A container keeps the one that started it.
//!
//! Everything that must outlive the agent is outside of it: namespaces are pinned by mounts,
//! processes belong to the shims, output to the log writer, exit codes wait in the shim until they are
//! settled, and records are files ([`state`]). So an agent may be killed at any point; a new
//! one reads what is there.
//!
//! What `ctl` calls: [`launch::find_or_start`] for the socket, [`Containerd::start`], and for
//! `down --purge` [`purge::purge`].

mod by_containerd;
mod by_shim;
pub mod client;
mod config;
mod container;
mod events;
mod exec;
pub mod host;
pub mod launch;
mod layers;
pub mod lease;
mod left_commands;
pub mod options;
mod pod;
pub mod purge;
mod refusals;
mod runtime;
pub mod sandbox;
mod shim_events;
mod standing;
pub mod state;
mod sweep;
mod task;
mod tasks;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use self::config::Config;

use self::by_containerd::ByContainerd;
use self::by_shim::ByShim;
use self::client::Client;
use self::layers::Layers;
use self::left_commands::Left;
use self::sandbox::Sandboxes;
use self::state::{Record, States};
use self::tasks::Tasks;
use super::cgroups::Cgroups;
use super::cgroups::moves::Moves;
use super::cgroups::refusals::Refusals;
use super::spec::Host;
use super::{ContainerId, Error, Result, RuntimeEvent};
use crate::images::ContainerdImages;
use crate::logs::client::LogWriter;

/// Events that a slow listener may fall behind by before it has to list again.
const EVENTS_MAX: usize = 4096;

/// A node's containers in containerd. Dropping it leaves the containers alone.
pub struct Containerd {
    shared: Arc<Shared>,
    images: Arc<ContainerdImages>,
    _tasks: JoinSet<()>,
}

/// What the parts of this folder share.
pub(crate) struct Shared {
    config: Config,
    client: Client,
    images: Arc<ContainerdImages>,
    sandboxes: Sandboxes,
    states: States,
    cgroups: Cgroups,
    moves: Arc<Moves>,
    /// Where the kernel tells of them.
    refusals: Option<Refusals>,
    host: Host,
    by_shim: ByShim,
    by_containerd: ByContainerd,
    logs: LogWriter,
    layers: Layers,
    events: broadcast::Sender<RuntimeEvent>,
    /// One step of a container's life at a time.
    locks: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    /// Containers in which the kernel has killed something for memory.
    oom: Mutex<HashSet<ContainerId>>,
    /// Whose end is written down but not announced yet.
    untold: Mutex<HashSet<ContainerId>>,
    /// Clean-up after calls that were dropped half way.
    chores: Mutex<JoinSet<()>>,
}

// === impl Containerd ===

impl Containerd {
    /// Connects and takes up what is there. Returns when containerd has answered; the events of a
    /// listener that subscribes right afterwards begin with [`RuntimeEvent::Connected`] or later.
    pub async fn start(config: Config) -> Result<Self> {
        let client = Client::new(&config.address, &config.namespace)?;
        ensure_namespace(&client).await?;
        let cgroups = Cgroups::detect()?;
        let host = host::detect(&cgroups);
        let images = Arc::new(ContainerdImages::new(
            client.clone(),
            config.registries.clone(),
        ));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let shim = Arc::new(config.shim());
        let shared = Arc::new(Shared {
            by_shim: ByShim::new(Arc::clone(&shim), host.clone()),
            by_containerd: ByContainerd::new(client.clone(), host.clone()),
            sandboxes: config.sandboxes(),
            states: States::new(config.containers_dir()),
            logs: LogWriter::new(config.log_config()),
            layers: Layers::default(),
            images: Arc::clone(&images),
            config,
            client,
            moves: Moves::new(&cgroups),
            refusals: refusals::new(&cgroups),
            cgroups,
            host,
            events,
            locks: Mutex::default(),
            oom: Mutex::default(),
            untold: Mutex::default(),
            chores: Mutex::default(),
        });
        let left = Left::find(&shared.states);
        let mut tasks = JoinSet::new();
        let client = shared.client.clone();
        tasks.spawn(async move {
            for command in left {
                command.end(&client).await;
            }
        });
        tasks.spawn(events::run(Arc::clone(&shared)));
        if shared.needs_shim() {
            tasks.spawn(shim_events::run(Arc::clone(&shared), shim));
        }
        tasks.spawn(refusals::run(Arc::clone(&shared)));
        let logs = Arc::clone(&shared);
        tasks.spawn(async move { logs.logs.keep_running().await });
        Ok(Self {
            shared,
            images,
            _tasks: tasks,
        })
    }
}

async fn ensure_namespace(client: &Client) -> Result<()> {
    let namespace = Namespace {
        name: client.namespace().to_owned(),
        labels: HashMap::new(),
    };
    let request = CreateNamespaceRequest {
        namespace: Some(namespace),
    };
    let what = format!("making the containerd namespace {}", client.namespace());
    client
        .call_create(&what, client.namespaces().create(request))
        .await
        .map(drop)
}

// === impl Shared ===

impl Shared {
    /// That nobody listens is no error.
    fn announce(&self, event: RuntimeEvent) {
        let _ = self.events.send(event);
    }

    /// Cleans up in the background.
    fn chore(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut chores = self.chores.lock();
        while chores.try_join_next().is_some() {}
        // At the very end there is no reactor left; what stays is cleaned up with the container.
        if let Ok(reactor) = tokio::runtime::Handle::try_current() {
            chores.spawn_on(work, &reactor);
        }
    }

    /// What runs a container's processes.
    fn tasks_of(&self, record: &Record) -> &dyn Tasks {
        match record.shim {
            true => &self.by_shim,
            false => &self.by_containerd,
        }
    }

    /// What may run the processes of a container, of which there may be no record.
    fn tasks_of_any(&self, record: Option<&Record>) -> Vec<&dyn Tasks> {
        match record {
            Some(record) => vec![self.tasks_of(record)],
            None if self.needs_shim() => vec![&self.by_shim, &self.by_containerd],
            None => vec![&self.by_containerd],
        }
    }

    /// What runs the processes of these containers.
    fn tasks_in_use<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Vec<&dyn Tasks> {
        let (mut shim, mut containerd) = (false, false);
        for record in records {
            shim |= record.shim;
            containerd |= !record.shim;
        }
        let both: [(bool, &dyn Tasks); 2] =
            [(shim, &self.by_shim), (containerd, &self.by_containerd)];
        both.into_iter()
            .filter(|(used, _)| *used)
            .map(|(_, tasks)| tasks)
            .collect()
    }

    /// New containers get the shim, or some that are there have it.
    fn needs_shim(&self) -> bool {
        let has = |id: &ContainerId| matches!(self.states.of(id).record(), Ok(Some(r)) if r.shim);
        self.config.shim.is_some() || self.states.ids().iter().any(has)
    }

    /// Waits until nobody else works on this container.
    async fn lock(&self, id: &ContainerId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.locks.lock().entry(id.clone()).or_default());
        lock.lock_owned().await
    }
}

/// Runs what blocks on a thread for such work.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::Failed {
                what: what.to_owned(),
                reason: error.to_string(),
            })
        })
}
