//! A node: the network agent and the node agent, in one process or in two.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use peapod_api::attach::PodNetwork;
use peapod_apiserver::ApiServer;
use peapod_apiserver::pki::Subject;
use peapod_netd::{DnsConfig, Netd};
use peapod_nodelet::KubeletConfiguration;
use peapod_nodelet::Serving;
use peapod_nodelet::cni::{self, CniNetwork};
use peapod_nodelet::make::etc::ClusterDns;
use peapod_nodelet::runtime::Runtime;
use peapod_nodelet::runtime::containerd::Containerd;
use peapod_nodelet::runtime::users::Ranges;
use serde::{Deserialize, Serialize};

use super::tasks::Tasks;
use crate::footprint;
use crate::instance::runtime_flags::{RuntimeFlags, RuntimeShim};
use crate::instance::{Layout, preflight};
use crate::net::local::LocalNode;
use crate::net::trace;

/// Where the kubelet API listens.
pub const KUBELET_PORT: u16 = 10250;
/// What the node's BGP speaker is called there.
pub const BGP_AGENT: &str = "bgp";
/// What looks at the ways of packets there.
pub const TRACE_AGENT: &str = "trace";
/// Most pods on the node: a /24 less what is not handed out.
const MAX_PODS: u32 = 250;

/// What a node is; kept in its data directory, so that it is the same at its next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Name of the Node.
    pub name: String,
    /// Its addresses, the preferred family first.
    pub ips: Vec<IpAddr>,
    /// Those that only this machine and its pods may reach.
    #[serde(default)]
    pub private_ips: Vec<IpAddr>,
    /// Labels, beside those of every node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints to be registered with.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// What is the same for all nodes.
    #[serde(flatten)]
    pub cluster: ClusterSettings,
    /// URL of the API server.
    pub server: String,
    /// containerd's socket, where it was chosen.
    #[serde(default)]
    pub containerd: Option<PathBuf>,
    /// Somebody else's CNI plugins that link the pods, if that was chosen.
    #[serde(default)]
    pub cni: Option<CniSettings>,
    /// What runs its containers.
    #[serde(default)]
    pub runtime: RuntimeFlags,
    /// Where the node's network namespace is pinned, when it is not the machine's.
    #[serde(default)]
    pub netns: Option<PathBuf>,
}

/// Somebody else's CNI plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniSettings {
    /// Configurations; the first by name counts.
    pub conf_dir: PathBuf,
    /// Plugins, searched in order.
    pub bin_dirs: Vec<PathBuf>,
}

impl CniSettings {
    /// As the node agent takes them.
    pub fn dirs(&self) -> cni::Dirs {
        cni::Dirs {
            conf: self.conf_dir.clone(),
            bin: self.bin_dirs.clone(),
        }
    }
}

/// What every node must know of its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// Ranges of pod addresses, the preferred family first.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of service addresses, the preferred family first.
    pub service_cidrs: Vec<IpNet>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// UDP port of VXLAN between nodes.
    #[serde(default = "crate::instance::settings::vxlan_port")]
    pub vxlan_port: u16,
    /// The cluster's DNS.
    pub dns: IpAddr,
    /// Below it are the volumes of the node-local class, on every node.
    pub local_volumes_dir: PathBuf,
}

/// The ports on the node's address, before anything is changed. Another program has them only if
/// it listens on every address.
pub fn check_kubelet_port(ip: IpAddr) -> Result<()> {
    let kubelet = SocketAddr::new(ip, KUBELET_PORT);
    preflight::port(kubelet, "the node agent needs it for logs and exec")
}

/// The network agent's configuration.
pub fn netd_config(node: &NodeSettings, layout: &Layout) -> peapod_netd::Config {
    let mut dns = DnsConfig::new(vec![node.cluster.dns]);
    dns.domain = node.cluster.cluster_domain.clone();
    peapod_netd::Config {
        node_name: node.name.clone(),
        node_ips: node.ips.clone(),
        private_ips: node.private_ips.clone(),
        pod_cidrs: node.cluster.pod_cidrs.clone(),
        service_cidrs: node.cluster.service_cidrs.clone(),
        dns: Some(dns),
        mtu: None,
        vxlan_port: node.cluster.vxlan_port,
        bgp_socket: Some(layout.bgp_socket()),
        attach_socket: Some(layout.netd_socket()),
        foreign_links: node.cni.is_some(),
        state_dir: layout.network(),
    }
}

/// Starts the network agent in this process.
pub async fn start_netd(
    client: kube::Client,
    node: &NodeSettings,
    layout: &Layout,
    tasks: &Tasks,
) -> Result<Arc<Netd>> {
    let config = netd_config(node, layout);
    Ok(Netd::start(client, config, tasks.shutdown.clone()).await?)
}

/// Reads the node agent's settings, where the node has any.
fn kubelet_config(path: &Path) -> Result<KubeletConfiguration> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(KubeletConfiguration::default());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let config: KubeletConfiguration = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is no KubeletConfiguration", path.display()))?;
    match config.check() {
        Ok(()) => Ok(config),
        Err(why) => bail!("{}: {why}", path.display()),
    }
}

/// The IDs of the host that pods with user namespaces get. Nodes of one machine are told apart by
/// their addresses.
fn user_ids(node: &NodeSettings) -> Result<Ranges> {
    let ranges = Ranges::of_host(MAX_PODS);
    let ranges = ranges.map_err(|why| anyhow!("no IDs for pods' user namespaces: {why}"))?;
    let number = match node.ips.first() {
        Some(IpAddr::V4(ip)) if node.netns.is_some() => {
            u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])
        }
        _ => 0,
    };
    Ok(ranges.of_node(number.into()))
}

/// Runs the node agent in this process.
pub async fn spawn_nodelet(
    client: kube::Client,
    node: &NodeSettings,
    layout: &Layout,
    socket: PathBuf,
    server: peapod_nodelet::ServerConfig,
    network: Arc<dyn PodNetwork>,
    tasks: &mut Tasks,
) -> Result<()> {
    let mut runtime = layout.runtime(socket);
    if let Some(program) = &node.runtime.oci_runtime {
        runtime.oci_runtime.clone_from(program);
    }
    if node.runtime.runtime_shim.unwrap_or_default() == RuntimeShim::Runc {
        runtime.shim = None;
        // crun refuses the hosts with cgroups of both versions, unless our shim starts it.
        if node.runtime.oci_runtime.is_none() {
            runtime.oci_runtime = "runc".to_owned();
        }
    }
    runtime.host_netns = node.netns.clone();
    runtime.user_ids = user_ids(node)?;
    let network: Arc<dyn PodNetwork> = match &node.cni {
        None => network,
        Some(cni) => {
            let plugins = CniNetwork::new(cni.dirs(), &layout.cni(), Some(network));
            Arc::new(plugins.context("cannot keep records of pods' attachments")?)
        }
    };
    let runtime: Arc<dyn Runtime> = Arc::new(Containerd::start(runtime).await?);
    tokio::spawn(footprint::shrink_after_bursts(runtime.events()));
    let config = peapod_nodelet::Config {
        node_name: node.name.clone(),
        node_ips: node.ips.clone(),
        // A node in a namespace shares the machine's name with the others.
        hostname: node.netns.is_some().then(|| node.name.clone()),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        data_dir: layout.node(),
        log_dir: layout.logs(),
        local_volumes_dir: node.cluster.local_volumes_dir.clone(),
        runtime,
        cluster_dns: ClusterDns {
            servers: vec![node.cluster.dns],
            domain: node.cluster.cluster_domain.clone(),
        },
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        max_pods: MAX_PODS,
        reserved: Default::default(),
        kubelet: kubelet_config(&layout.kubelet_config())?,
        server: Some(server),
    };
    let traced = LocalNode::here(&node.name, layout);
    let traces = trace::agent::serve(traced, layout.trace_socket());
    tasks.spawn_endless("looks at the ways of packets", traces);
    let stop = tasks.shutdown.clone();
    tasks.spawn(
        "the node agent",
        peapod_nodelet::run(client, config, network, stop),
    );
    Ok(())
}

/// The agents of the node that answer for themselves.
pub fn agents(layout: &Layout) -> BTreeMap<String, PathBuf> {
    BTreeMap::from([
        (BGP_AGENT.to_owned(), layout.bgp_socket()),
        (TRACE_AGENT.to_owned(), layout.trace_socket()),
    ])
}

/// Starts the agents of a node in the API server's own process.
pub async fn start_in(
    server: &ApiServer,
    node: &NodeSettings,
    layout: &Layout,
    socket: PathBuf,
    tasks: &mut Tasks,
) -> Result<Arc<Netd>> {
    let name = format!("system:node:{}", node.name);
    let client = server.client(&name, &["system:nodes"]);
    let netd = start_netd(client.clone(), node, layout, tasks).await?;
    server.register_metrics(|registry| netd.register_metrics(registry));
    let mut sans = vec![node.name.clone()];
    sans.extend(node.ips.iter().map(ToString::to_string));
    let subject = Subject {
        name: &name,
        groups: &["system:nodes"],
        sans: &sans,
    };
    let serving = server
        .pki()
        .credential("kubelet", &subject, Timestamp::now())?;
    let serving = Serving {
        cert_pem: serving.certificate,
        key_pem: serving.key,
    };
    let kubelet = peapod_nodelet::ServerConfig {
        port: KUBELET_PORT,
        // Renewed at the next start.
        serving: tokio::sync::watch::channel(serving).1,
        client_ca_pem: server.pki().ca_certificate().to_owned(),
        agents: agents(layout),
    };
    spawn_nodelet(client, node, layout, socket, kubelet, netd.clone(), tasks).await?;
    Ok(netd)
}
