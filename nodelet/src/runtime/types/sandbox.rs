//! What a pod's containers share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use peapod_api::attach::PodRef;
use serde::{Deserialize, Serialize};

use super::resources::Resources;
use crate::runtime::users::HostIds;

/// Whose namespace a pod or container lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's own, shared by its containers.
    #[default]
    Pod,
    /// One for each container (only for process IDs, where it is the rule).
    Container,
    /// The host's.
    Host,
}

/// The Quality of Service class of a pod; it decides where its cgroup stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Limits equal requests for every container.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    #[default]
    BestEffort,
}

/// What a pod's containers share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod.
    pub pod: PodRef,
    /// What `hostname` says inside; at most 64 bytes.
    pub hostname: String,
    /// [`NamespaceMode::Host`] for `hostNetwork`, which shares the host's UTS namespace, too.
    pub network: NamespaceMode,
    /// With the host's network, the pod has a UTS namespace of its own all the same: its node's name is not
    /// the machine's.
    #[serde(default)]
    pub own_hostname: bool,
    /// [`NamespaceMode::Host`] for `hostIPC`.
    pub ipc: NamespaceMode,
    /// `hostPID`: Host; `shareProcessNamespace`: Pod; otherwise Container.
    pub pid: NamespaceMode,
    /// The pod has a user namespace of its own (`hostUsers: false`): its IDs are others on the host.
    #[serde(default)]
    pub own_users: bool,
    /// Namespaced sysctls (`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`).
    pub sysctls: BTreeMap<String, String>,
    /// QoS class.
    pub qos: QosClass,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// OCI runtime to use for its containers, instead of the node's default.
    #[serde(default)]
    pub runtime_handler: Option<String>,
    /// Kept with the sandbox for the caller.
    pub labels: BTreeMap<String, String>,
}

// === impl SandboxSpec ===

impl SandboxSpec {
    /// Whether the pod has a UTS namespace of its own.
    pub fn has_uts(&self) -> bool {
        self.network != NamespaceMode::Host || self.own_hostname
    }
}

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What it was made from.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where the network namespace is pinned; `None` with the host's network.
    pub netns: Option<PathBuf>,
    /// The IDs of the host that the pod has, with a user namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<HostIds>,
    /// The first process of the PID namespace that the containers share, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaper: Option<u32>,
    /// Whether the namespaces are still there. A reboot takes them: remove the sandbox and make
    /// it anew.
    pub alive: bool,
}
