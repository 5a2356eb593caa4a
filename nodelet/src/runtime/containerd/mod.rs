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
mod container;
mod events;
mod exec;
pub mod host;
pub mod launch;
mod layers;
pub mod lease;
pub mod options;
pub mod purge;
mod refusals;
pub mod sandbox;
mod shim_events;
mod standing;
pub mod state;
mod sweep;
mod task;
mod tasks;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use jiff::Timestamp;
use parking_lot::Mutex;
use peapod_shim::client::Shim;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use self::by_containerd::ByContainerd;
use self::by_shim::ByShim;
use self::client::Client;
use self::layers::Layers;
use self::sandbox::Sandboxes;
use self::state::{Record, States};
use self::tasks::Tasks;
use super::cgroups::moves::Moves;
use super::cgroups::refusals::Refusals;
use super::cgroups::{self, Cgroups};
use super::spec::Host;
use super::users::{self, Ranges};
use super::{
    Container, ContainerId, ContainerSpec, DiskUsage, Error, ExecOutput, ExecSpec, Images,
    Resources, Result, Runtime, RuntimeEvent, RuntimeInfo, Sandbox, SandboxSpec, Stats, Streams,
};
use crate::images::ContainerdImages;
use crate::images::registry::RegistryConfig;
use crate::logs::client::{Config as LogConfig, LogWriter};
use crate::logs::file::Limits;
use crate::logs::writer::Args as LogArgs;

/// Events that a slow listener may fall behind by before it has to list again.
const EVENTS_MAX: usize = 4096;

/// Pods with user namespaces, unless told otherwise.
const PODS_MAX: u32 = 110;

/// The cgroup of a pod's reaper, beside those of its containers.
const REAPER_GROUP: &str = "reaper";

/// Where and how to run containers.
#[derive(Clone, Debug)]
pub struct Config {
    /// containerd's socket, from [`launch::find_or_start`].
    pub address: PathBuf,
    /// Our containerd namespace; several nodes on one machine have one each.
    pub namespace: String,
    /// Where the node keeps its sandboxes and the states of its containers; survives reboots.
    pub state_dir: PathBuf,
    /// Name of the cgroup below which all pods of this node are.
    pub cgroup_parent: String,
    /// OCI runtime, by name or path: `runc`, `crun`.
    pub oci_runtime: String,
    /// Program and first arguments of the log writer ([`crate::logs::writer_main`]).
    pub log_writer: Vec<OsString>,
    /// Program and first arguments of the shim ([`peapod_shim::shim_main`]) for new containers; without
    /// it they get containerd's runc shim. Those that run keep what they have.
    pub shim: Option<Vec<OsString>>,
    /// How much of each container's log is kept.
    pub log_limits: Limits,
    /// How registries are spoken to.
    pub registries: RegistryConfig,
    /// IDs of the host for pods with user namespaces.
    pub user_ids: Ranges,
    /// Where the node's network namespace is pinned, when it is not the one of containerd: what
    /// shares the host's network is put there.
    pub host_netns: Option<PathBuf>,
}

impl Config {
    /// A node's configuration with the usual values; `log_writer` is this program with
    /// `log-writer`.
    pub fn new(address: PathBuf, namespace: &str, state_dir: PathBuf) -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("peapod"));
        Self {
            address,
            namespace: namespace.to_owned(),
            state_dir,
            cgroup_parent: namespace.to_owned(),
            oci_runtime: host::default_oci_runtime().to_owned(),
            log_writer: vec![program.clone().into(), "log-writer".into()],
            shim: Some(vec![program.into(), "shim".into()]),
            log_limits: Limits::default(),
            registries: RegistryConfig::default(),
            user_ids: Ranges::default_for(PODS_MAX),
            host_netns: None,
        }
    }

    fn sandboxes(&self) -> Sandboxes {
        Sandboxes::new(self.state_dir.join("sandboxes"), self.user_ids)
    }

    fn containers_dir(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    /// The node's shim; also when new containers get none, for those that have one.
    fn shim(&self) -> Shim {
        let command = self.shim.clone().unwrap_or_else(|| {
            let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("peapod"));
            vec![program.into(), "shim".into()]
        });
        Shim::new(command, &self.containers_dir(), self.state_dir.join("shim"))
    }

    fn log_config(&self) -> LogConfig {
        LogConfig {
            command: self.log_writer.clone(),
            socket: self.state_dir.join("log-writer.sock"),
            args: LogArgs {
                containers: self.containers_dir(),
                limits: self.log_limits,
            },
        }
    }
}

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
        let mut tasks = JoinSet::new();
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

    /// The cgroup of a pod.
    fn pod_group(&self, sandbox: &SandboxSpec) -> PathBuf {
        cgroups::pod_group(&self.config.cgroup_parent, sandbox.qos, &sandbox.pod.uid)
    }

    fn sandbox(&self, pod_uid: &str) -> Result<Sandbox> {
        let missing = || Error::NotFound {
            kind: "sandbox",
            id: pod_uid.to_owned(),
        };
        self.sandboxes.get(pod_uid)?.ok_or_else(missing)
    }

    async fn create_sandbox(self: &Arc<Self>, spec: &SandboxSpec) -> Result<Sandbox> {
        self.moves.begin();
        let shared = Arc::clone(self);
        let spec = spec.clone();
        // Threads that change namespaces, and files of the kernel: none of it for the reactor.
        blocking("making a sandbox", move || {
            let group = shared.pod_group(&spec);
            shared.cgroups.apply(&group, &spec.resources)?;
            let sandbox = shared.sandboxes.create(&spec, Timestamp::now())?;
            if let Some(pid) = sandbox.reaper {
                shared.cgroups.join(&group.join(REAPER_GROUP), pid)?;
            }
            Ok(sandbox)
        })
        .await
    }

    async fn remove_sandbox(self: &Arc<Self>, pod_uid: &str) -> Result<()> {
        for container in self.list().await? {
            if container.pod_uid == pod_uid {
                self.remove(&container.id).await?;
            }
        }
        self.drop_layers(pod_uid).await?;
        self.hear_no_more(pod_uid);
        let Some(sandbox) = self.sandboxes.get(pod_uid)? else {
            return self.sandboxes.remove(pod_uid);
        };
        let shared = Arc::clone(self);
        blocking("removing a sandbox", move || {
            shared.sandboxes.unpin(&sandbox.spec.pod.uid)?;
            shared.cgroups.remove(&shared.pod_group(&sandbox.spec))?;
            shared.sandboxes.remove(&sandbox.spec.pod.uid)
        })
        .await
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

#[async_trait]
impl Runtime for Containerd {
    async fn info(&self) -> Result<RuntimeInfo> {
        let Config {
            address,
            oci_runtime,
            ..
        } = &self.shared.config;
        // A private daemon's content is beside its socket, the machine's in its usual place.
        let private = address
            .parent()
            .map(|dir| dir.join("root"))
            .filter(|dir| dir.is_dir());
        Ok(RuntimeInfo {
            name: "containerd".to_owned(),
            version: self.shared.client.version().await?,
            oci_runtime: oci_runtime.clone(),
            handlers: host::oci_runtimes(),
            user_namespaces: users::missing().is_none(),
            cgroup_v2: self.shared.cgroups.is_v2(),
            image_dir: private.unwrap_or_else(|| Path::new("/var/lib/containerd").into()),
        })
    }

    async fn ready(&self) -> Result<()> {
        self.shared.client.version().await.map(drop)
    }

    fn has_handler(&self, handler: &str) -> bool {
        handler == self.shared.config.oci_runtime || host::is_program(handler)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        self.shared.create_sandbox(spec).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        let shared = Arc::clone(&self.shared);
        blocking("listing sandboxes", move || shared.sandboxes.list()).await
    }

    async fn update_sandbox(&self, pod_uid: &str, resources: &Resources) -> Result<()> {
        let mut sandbox = self.shared.sandbox(pod_uid)?;
        let group = self.shared.pod_group(&sandbox.spec);
        self.shared.cgroups.apply(&group, resources)?;
        sandbox.spec.resources = resources.clone();
        self.shared.sandboxes.record(&sandbox)
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<()> {
        self.shared.remove_sandbox(pod_uid).await
    }

    async fn prepare_container(&self, pod_uid: &str, id: &ContainerId, image: &str) -> Result<()> {
        self.shared.prepare_layer(pod_uid, id, image).await
    }

    async fn discard_prepared(&self, pod_uid: &str) -> Result<()> {
        self.shared.drop_layers(pod_uid).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.shared.create(spec).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.start(id).await
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.shared.signal(id, signal).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.remove(id).await
    }

    async fn containers(&self) -> Result<Vec<Container>> {
        self.shared.list().await
    }

    async fn container(&self, id: &ContainerId) -> Result<Container> {
        self.shared.get(id).await
    }

    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        self.shared.update(id, resources).await
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.shared.events.subscribe()
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: Streams) -> Result<i32> {
        self.shared.exec(id, spec, streams).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        self.shared.exec_sync(id, command, timeout).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Option<i32>> {
        self.shared.attach(id, streams).await
    }

    async fn container_stats(&self, id: &ContainerId) -> Result<Stats> {
        let record = self.shared.record(id)?;
        self.shared.cgroups.stats(&record.cgroup)
    }

    async fn sandbox_stats(&self, pod_uid: &str) -> Result<Stats> {
        let sandbox = self.shared.sandbox(pod_uid)?;
        self.shared
            .cgroups
            .stats(&self.shared.pod_group(&sandbox.spec))
    }

    async fn refused_forks(&self, pod_uid: &str) -> Result<u64> {
        let sandbox = self.shared.sandbox(pod_uid)?;
        let group = self.shared.pod_group(&sandbox.spec);
        Ok(self.shared.cgroups.refused_forks(&group))
    }

    async fn writable_usage(&self, id: &ContainerId) -> Result<DiskUsage> {
        self.shared.writable_usage(id).await
    }

    async fn flush_log(&self, id: &ContainerId) -> Result<()> {
        self.shared.logs.flush(&id.0).await
    }

    fn images(&self) -> Arc<dyn Images> {
        Arc::clone(&self.images) as Arc<dyn Images>
    }
}
