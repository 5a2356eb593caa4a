//! What all pods of the node share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use parking_lot::Mutex;
use peapod_api::attach::PodNetwork;
use peapod_api::k8s_openapi;
use tokio::sync::{Semaphore, watch};

use super::Table;
use super::notes::Notes;
use crate::config::Config;
use crate::core::qos::Amounts;
use crate::core::{qos, spec_of};
use crate::cpus::Cpus;
use crate::csi::Csi;
use crate::devices::Devices;
use crate::make::fields::Place;
use crate::make::sandbox::Host;
use crate::objects::Objects;
use crate::probes::Prober;
use crate::runtime::{Images, Runtime};

/// How many of the heavy things happen at once.
#[derive(Debug)]
pub struct Limits {
    /// Containers being made and started.
    pub starts: Semaphore,
    /// Images being pulled.
    pub pulls: Semaphore,
    /// Volumes and namespaces being put in place: after a restart, those of all pods at once.
    pub places: Semaphore,
    /// Probes in flight.
    pub probes: Semaphore,
    /// Requests to the API about pods' states.
    pub reports: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            starts: Semaphore::new(16),
            pulls: Semaphore::new(5),
            places: Semaphore::new(16),
            probes: Semaphore::new(64),
            reports: Semaphore::new(16),
        }
    }
}

/// Longest time for volumes, namespaces and their release.
pub const PLACE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time for making and starting a container.
pub const START_TIMEOUT: Duration = Duration::from_secs(240);

/// What all pods of the node share.
pub struct Context {
    /// How the node was configured.
    pub config: Config,
    /// The API.
    pub client: Client,
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Has their images.
    pub images: Arc<dyn Images>,
    /// Connects pods.
    pub network: Arc<dyn PodNetwork>,
    /// What pods refer to.
    pub objects: Objects,
    /// Writes events.
    pub notes: Notes,
    /// Runs probes.
    pub prober: Prober,
    /// This node as the API has it, or as it will be registered.
    pub node: watch::Receiver<Arc<Node>>,
    /// How many at once.
    pub limits: Limits,
    /// Who has CPUs for itself.
    pub cpus: Cpus,
    /// What plugins bring.
    pub devices: Arc<Devices>,
    /// Storage drivers, and what they hold for pods.
    pub csi: Csi,
    /// All pods of the node.
    pub table: Table,
    /// Held while a pod is admitted or its allocation changes.
    pub admission: Mutex<()>,
    /// Marked when a pod takes less of the node than before.
    pub room: watch::Sender<()>,
    /// Whether the machine is about to go down.
    pub going: watch::Sender<bool>,
}

impl Context {
    /// What the node is called by those who share its network.
    pub fn host(&self) -> Host {
        Host {
            name: self.config.hostname(),
            apart: self.config.hostname.is_some(),
        }
    }

    /// Where a pod's files are.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// Where a pod's logs are.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
        self.config
            .log_dir
            .join(format!("{namespace}_{name}_{uid}"))
    }

    /// Where a container's log is.
    pub fn log_path(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        self.log_dir(pod)
            .join(container)
            .join(format!("{attempt}.log"))
    }

    /// Where a container leaves its termination message.
    pub fn message_path(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid)
            .join("containers")
            .join(container)
            .join(format!("message-{attempt}"))
    }

    /// What the node can give to pods.
    pub fn allocatable(&self) -> Amounts {
        let node = self.node.borrow();
        qos::amounts(
            node.status
                .as_ref()
                .and_then(|status| status.allocatable.as_ref()),
        )
    }

    /// A pod's place: node and addresses.
    pub fn place(&self, pod: &Pod, pod_ips: &[std::net::IpAddr]) -> Place {
        let host_ips = self.config.node_ips.clone();
        let host_network = spec_of(pod).host_network == Some(true);
        Place {
            pod_ips: if host_network {
                host_ips.clone()
            } else {
                pod_ips.to_vec()
            },
            host_ips,
            allocatable: self.allocatable(),
        }
    }
}
