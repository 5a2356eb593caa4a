//! Devices that plugins bring to the node (GPUs and the like): the device plugin API, v1beta1.
//!
//! ```text
//!   plugin ──Register──► registration ──► plugin client ──ListAndWatch──► pool ──► Node's capacity
//!   start of a container ──► Devices::give ──► pool chooses ──Allocate──► plugin
//! ```
//!
//! What a plugin only names is described by files of the node ([`cdi`]).
//!
//! The [`pool`] is pure: which devices there are, and who holds which. [`plugin`] speaks to a plugin,
//! [`registration`] hears of new ones. Who holds what is kept on disk, with the plugin's answer, so
//! that a container starts again with its devices though the plugin is away.

pub mod cdi;
pub mod plugin;
pub mod pod_resources;
pub mod pool;
pub mod registration;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use peapod_api::k8s_openapi;
use prost::Message;
use tokio::sync::watch;

use self::plugin::Plugin;
use self::pool::{Counts, Holding, Pool};
use crate::core::{Kind, qos, view};
use crate::runtime::{Device, Mount};
use crate::whole_file::write_durably;

/// What the build script makes of `proto/deviceplugin.proto`.
#[allow(missing_docs, clippy::all)]
pub mod api {
    tonic::include_proto!("v1beta1");
}

/// The only version of the API.
pub const VERSION: &str = "v1beta1";
/// The socket on which plugins register.
pub const SOCKET: &str = "kubelet.sock";
/// Who holds what.
const CHECKPOINT: &str = "devices.json";

/// What a container is given of its devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// What the plugins answered.
    pub responses: Vec<api::ContainerAllocateResponse>,
}

/// The devices of a node.
pub struct Devices {
    dir: PathBuf,
    pool: Mutex<Pool>,
    plugins: Mutex<HashMap<String, Arc<Plugin>>>,
    /// One choice at a time: what is free when it is chosen is free when it is recorded.
    choice: tokio::sync::Mutex<()>,
    counts: watch::Sender<Counts>,
}

// === impl Given ===

impl Given {
    /// The environment with that of the devices, which the container's own goes before.
    pub fn env(&self, own: Vec<(String, String)>) -> Vec<(String, String)> {
        let envs = self.responses.iter().flat_map(|response| &response.envs);
        let mut all: Vec<_> = envs.map(|(k, v)| (k.clone(), v.clone())).collect();
        all.sort();
        all.extend(own);
        all
    }

    /// The mounts with those of the devices; where a volume stands already it stays.
    pub fn mounts(&self, mut all: Vec<Mount>) -> Vec<Mount> {
        for mount in self.responses.iter().flat_map(|response| &response.mounts) {
            let destination = PathBuf::from(&mount.container_path);
            if all.iter().all(|other| other.destination != destination) {
                all.push(Mount {
                    destination,
                    source: PathBuf::from(&mount.host_path),
                    read_only: mount.read_only,
                    ..Mount::default()
                });
            }
        }
        all
    }

    /// The devices that files of the node describe ([`cdi`]).
    pub fn cdi(&self) -> Vec<String> {
        let named = self
            .responses
            .iter()
            .flat_map(|response| &response.cdi_devices);
        named.map(|device| device.name.clone()).collect()
    }

    /// The device nodes.
    pub fn devices(&self) -> Vec<Device> {
        let devices = self.responses.iter().flat_map(|response| &response.devices);
        devices
            .map(|device| Device {
                host_path: PathBuf::from(&device.host_path),
                container_path: PathBuf::from(&device.container_path),
                permissions: device.permissions.clone(),
            })
            .collect()
    }
}

// === impl Devices ===

impl Devices {
    /// The devices of which `dir` knows; plugins come later.
    pub fn open(dir: PathBuf) -> Self {
        let pool = read(&dir.join(CHECKPOINT)).unwrap_or_default();
        let counts = watch::Sender::new(pool.counts());
        Self {
            dir,
            pool: Mutex::new(pool),
            plugins: Mutex::default(),
            choice: tokio::sync::Mutex::default(),
            counts,
        }
    }

    /// Where plugins have their sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many there are of each resource, and how many of them are well.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// What a container holds, by resource.
    pub fn held(&self, pod_uid: &str, container: &str) -> Vec<(String, Vec<String>)> {
        self.pool.lock().held(pod_uid, container)
    }

    /// The devices that are well, by resource.
    pub fn all(&self) -> Vec<(String, Vec<String>)> {
        self.pool.lock().well()
    }

    /// What a container is given of the resources that plugins bring; the plugin prepares them.
    pub async fn give(&self, pod: &Pod, container: &Container) -> Result<Given, String> {
        let mut given = Given::default();
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for (resource, amount) in qos::amounts(limits) {
            let count = usize::try_from(amount.units()).unwrap_or(0);
            if count == 0 || !self.pool.lock().knows(&resource) {
                continue;
            }
            let holding = self.hold(pod, container, &resource, count).await;
            let holding = holding.map_err(|why| format!("device plugin of {resource}: {why}"))?;
            given.responses.push(decode(&holding)?);
        }
        Ok(given)
    }

    async fn hold(
        &self,
        pod: &Pod,
        container: &Container,
        resource: &str,
        count: usize,
    ) -> Result<Holding, String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let _choice = self.choice.lock().await;
        let plugin = self.plugins.lock().get(resource).cloned();
        let held = self.pool.lock().holding(uid, &container.name, resource);
        let holding = match (held, &plugin) {
            (Some(held), _) => held,
            (None, None) => return Err("it has not registered".to_owned()),
            (None, Some(plugin)) => {
                let earlier = init_containers(pod);
                let offer = self.pool.lock().offer(uid, &earlier, resource, count)?;
                let wish = plugin.preferred(&offer, count).await?;
                let ids = offer.choose(&wish, count);
                let response = plugin.allocate(&ids).await?;
                let holding = Holding {
                    pod: uid.to_owned(),
                    container: container.name.clone(),
                    resource: resource.to_owned(),
                    ids,
                    response: encode(&response),
                };
                self.record(|pool| pool.hold(holding.clone())).await?;
                holding
            }
        };
        match plugin {
            Some(plugin) => plugin.pre_start(&holding.ids).await?,
            None => tracing::info!(resource, "a container starts while its plugin is away"),
        }
        Ok(holding)
    }

    /// Takes back what a pod holds.
    pub async fn release(&self, pod_uid: &str) {
        if self.pool.lock().has(pod_uid)
            && let Err(error) = self.record(|pool| pool.release(pod_uid)).await
        {
            tracing::warn!(pod.uid = pod_uid, error, "devices stay taken");
        }
    }

    /// Takes back what pods hold that are not among these.
    pub async fn retain(&self, pods: &HashSet<String>) {
        if let Err(error) = self.record(|pool| pool.retain(pods)).await {
            tracing::warn!(error, "devices of pods that are gone stay taken");
        }
    }

    /// A plugin has registered.
    fn registered(&self, resource: &str, plugin: Arc<Plugin>) {
        self.plugins.lock().insert(resource.to_owned(), plugin);
    }

    /// A plugin told of all its devices.
    async fn listed(&self, resource: &str, devices: BTreeMap<String, bool>) {
        let known = self.pool.lock().knows(resource);
        self.pool.lock().list(resource, devices);
        if !known && let Err(error) = self.record(|_| {}).await {
            tracing::warn!(resource, error, "a device plugin may be forgotten");
        }
        self.tell();
    }

    /// A plugin went away, unless another has come in its place.
    fn gone(&self, resource: &str, plugin: &Arc<Plugin>) {
        let mut plugins = self.plugins.lock();
        let same = |present: &Arc<Plugin>| Arc::ptr_eq(present, plugin);
        if plugins.get(resource).is_some_and(same) {
            plugins.remove(resource);
            self.pool.lock().lose(resource);
            self.tell();
        }
    }

    fn tell(&self) {
        let counts = self.pool.lock().counts();
        self.counts.send_if_modified(|known| {
            let changed = *known != counts;
            *known = counts;
            changed
        });
    }

    /// Changes who holds what, here and on disk.
    async fn record(&self, change: impl FnOnce(&mut Pool)) -> Result<(), String> {
        let text = {
            let mut pool = self.pool.lock();
            change(&mut pool);
            serde_json::to_vec(&*pool).map_err(|error| error.to_string())?
        };
        let path = self.dir.join(CHECKPOINT);
        let written = tokio::task::spawn_blocking(move || write_durably(&path, &text)).await;
        written
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("{}: {error}", self.dir.join(CHECKPOINT).display()))
    }
}

/// The containers whose devices later ones of the pod may have: they have ended by then.
fn init_containers(pod: &Pod) -> Vec<String> {
    let init = view(pod).filter(|view| view.kind == Kind::Init);
    init.map(|view| view.name.to_owned()).collect()
}

fn encode(response: &api::ContainerAllocateResponse) -> String {
    base64::engine::general_purpose::STANDARD.encode(response.encode_to_vec())
}

fn decode(holding: &Holding) -> Result<api::ContainerAllocateResponse, String> {
    let broken = || format!("what is kept of {} cannot be read", holding.resource);
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&holding.response)
        .map_err(|_| broken())?;
    api::ContainerAllocateResponse::decode(bytes.as_slice()).map_err(|_| broken())
}

fn read(path: &Path) -> Option<Pool> {
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(pool) => Some(pool),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "who holds which device is not known");
            None
        }
    }
}
