//! The seam between the node agent and the network agent: attach a pod to the network,
//! detach it.
//!
//! Requests and replies are plain serialisable values, so that the seam is a function call
//! where one process holds both agents and a message over a root-only socket where they run
//! apart. The agent that answers "attached" has already programmed the link, the addresses,
//! the routes and the service maps: there is one owner for the way to a pod, and a reply means
//! that packets flow.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which pod; the UID tells a pod from its successor of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A port of the node that leads to a port of the pod (`ports[].hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's address to listen on; `None` means every one of them.
    pub host_ip: Option<IpAddr>,
    /// The node's port, 1-65535.
    pub host_port: u16,
    /// The pod's port, 1-65535.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// Asks for a pod's network namespace to be connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The pod.
    pub pod: PodRef,
    /// Where the pod's network namespace is pinned (a bind mount of `/proc/.../ns/net`).
    pub netns: PathBuf,
    /// Name of the link inside the pod; `None` is the usual `eth0`.
    #[serde(default)]
    pub interface: Option<String>,
    /// Ports of the node that lead to this pod.
    pub host_ports: Vec<HostPort>,
}

/// A connected pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    /// The pod's addresses, the preferred family first (`status.podIPs`). Attaching the same
    /// pod again gives the same addresses.
    pub ips: Vec<IpAddr>,
    /// Name of the link inside the pod, usually `eth0`.
    pub interface: String,
    /// MTU of that link in bytes; 0 where the network does not say.
    pub mtu: u32,
}

/// Asks for a pod's link, routes and addresses to be released. Detaching a pod that is not
/// attached succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachRequest {
    /// The pod.
    pub pod: PodRef,
}

/// Why an attachment failed. `message` says what failed, on what, and what to do.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct AttachError {
    /// Whether the same request may succeed later without anyone's help (no address block yet,
    /// for example).
    pub retriable: bool,
    /// The sentence for the pod's event.
    pub message: String,
}

/// The network agent, as the node agent sees it. Every method is idempotent.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a pod. Safe to repeat after a crash of either agent.
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError>;

    /// Disconnects a pod and releases its addresses.
    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError>;

    /// The pods that are attached now, so that a restarted node agent can release those that
    /// are gone.
    async fn attached(&self) -> Result<Vec<PodRef>, AttachError>;

    /// Waits until the network can attach pods (the node holds an address block, and the rules
    /// are in the kernel); the node agent reports the node Ready only then.
    async fn ready(&self) -> Result<(), AttachError>;

    /// What can be measured of the network, in OpenMetrics' text format; empty where nothing is.
    async fn metrics(&self) -> Result<String, AttachError> {
        Ok(String::new())
    }
}
