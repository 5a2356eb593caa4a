//! How a node agent is told what to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use peapod_api::k8s_openapi;
use tokio::sync::watch;

use crate::kubelet_config::KubeletConfiguration;
use crate::make::etc::ClusterDns;
use crate::runtime::Runtime;

/// The configuration of a node agent.
#[derive(Clone)]
pub struct Config {
    /// Name of the Node object: an RFC 1123 subdomain.
    pub node_name: String,
    /// The node's addresses, the preferred family first; at least one. The first is where the
    /// kubelet API listens.
    pub node_ips: Vec<IpAddr>,
    /// The node's host name, where it is not the machine's: pods that share its network see it.
    pub hostname: Option<String>,
    /// Labels of the Node, beside hostname, architecture and operating system.
    pub labels: BTreeMap<String, String>,
    /// Taints that the Node is registered with; later ones are others' affair.
    pub taints: Vec<Taint>,
    /// State: `pods/UID/...` below it.
    pub data_dir: PathBuf,
    /// Logs of containers: `NAMESPACE_POD_UID/CONTAINER/RESTARTS.log` below it.
    pub log_dir: PathBuf,
    /// Data of the built-in node-local volumes: a directory for each below it. Only what lies
    /// below is ever removed.
    pub local_volumes_dir: PathBuf,
    /// What runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// How pods resolve names.
    pub cluster_dns: ClusterDns,
    /// The host's resolver configuration. Where it names only a resolver on the machine itself,
    /// the real one of systemd-resolved is read in its place.
    pub resolv_conf: PathBuf,
    /// Most pods on this node.
    pub max_pods: u32,
    /// What is kept from pods, by resource (`cpu`, `memory`), as quantities.
    pub reserved: BTreeMap<String, String>,
    /// What upstream's configuration of a kubelet says.
    pub kubelet: KubeletConfiguration,
    /// The kubelet API; `None` for a node that is not to be asked (a hollow one).
    pub server: Option<ServerConfig>,
}

impl Config {
    /// What `hostname` says on the node.
    pub fn hostname(&self) -> String {
        let machine = || nix::unistd::gethostname().unwrap_or_default();
        let own = self.hostname.clone();
        own.unwrap_or_else(|| machine().to_string_lossy().into_owned())
    }

    /// Where images are, for what is left of their disk.
    pub async fn image_dir(&self) -> PathBuf {
        let info = self.runtime.info().await;
        info.map_or_else(|_| self.data_dir.clone(), |info| info.image_dir)
    }
}

/// The kubelet's HTTPS API.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// TCP port on the first of the node's addresses; 0 chooses one. What it is stands in
    /// `status.daemonEndpoints` of the Node.
    pub port: u16,
    /// The serving certificate now; new connections get the one that is there when they come.
    pub serving: watch::Receiver<Serving>,
    /// CA, in PEM, that must have signed a client's certificate.
    pub client_ca_pem: String,
    /// Sockets of other agents of the node, by name: whoever may look into the node may ask them.
    pub agents: BTreeMap<String, PathBuf>,
}

/// A serving certificate.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The certificate, with its chain, in PEM.
    pub cert_pem: String,
    /// Its private key in PEM.
    pub key_pem: String,
}
