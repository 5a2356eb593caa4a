//! `peapod server`: the control plane of a cluster of machines, in the foreground.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use peapod_api::bootstrap::{CLUSTER_INFO, KUBECONFIG, NODE_SETTINGS, PUBLIC, SETTINGS, SYSTEM};
use peapod_apiserver::ApiServer;
use peapod_netd::Netd;
use peapod_nodelet::runtime::containerd::launch;
use serde_json::json;

use super::node::{self, NodeSettings};
use super::server_join::{self, Joined, ServerJoinFlags};
use super::tasks::{self, Tasks};
use super::{containerd, control_plane};
use super::{discovery, token};
use crate::cli::single_threaded;
use crate::instance::api_flags::ApiFlags;
use crate::instance::cni_flags::CniFlags;
use crate::instance::runtime_flags::RuntimeFlags;
use crate::instance::settings::{self, Settings};
use crate::instance::state::InstanceLock;
use crate::instance::{Layout, State, layout, preflight, ready};

/// How long the token of the printed command holds.
const TOKEN_HOURS: i64 = 24;

/// The arguments of `peapod server`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Where all state lives
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Where the API server listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    listen: SocketAddr,
    /// Where nodes and pods reach it [default: this machine's address towards others]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Also write the kubeconfig to this file
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Ranges of pod addresses, the preferred family first
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:10:244::/56"
    )]
    pod_cidr: Vec<IpNet>,
    /// UDP port of VXLAN between nodes, where they need it [default: 4789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: Option<u16>,
    /// Ranges of service addresses, the preferred family first
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:10:96::/112"
    )]
    service_cidr: Vec<IpNet>,
    /// Leave these to processes of their own
    #[arg(long, value_name = "ROLE,...", value_delimiter = ',')]
    without: Vec<Part>,
    /// How long a node may be silent before it counts as unreachable
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    node_monitor_grace_period: u64,
    /// Lead only in turns with others, by Leases
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Be a node of the cluster, too
    #[arg(long)]
    node: bool,
    /// Name of that node [default: the host name]
    #[arg(long, value_name = "NAME", requires = "node")]
    node_name: Option<String>,
    /// Use the containerd that listens on this socket
    #[arg(long, value_name = "SOCKET", requires = "node")]
    containerd: Option<PathBuf>,
    #[command(flatten)]
    cni: CniFlags,
    #[command(flatten)]
    runtime: RuntimeFlags,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    join: ServerJoinFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `peapod controllers`
    Controllers,
    /// `peapod scheduler`
    Scheduler,
}

/// Runs `peapod server`.
pub fn run(args: &ServerArgs) -> Result<()> {
    if args.node {
        preflight::root()?;
    }
    let layout = Layout::new(&args.data_dir)?;
    std::fs::create_dir_all(layout.root())
        .with_context(|| format!("cannot create {}", layout.root().display()))?;
    let Some(lock) = InstanceLock::take(&layout)? else {
        bail!(
            "another peapod runs from {}; see `peapod status`",
            layout.root().display()
        );
    };
    let joined = single_threaded()?.block_on(server_join::settle(&args.join, &layout))?;
    let args = &match joined {
        Some(joined) => as_joined(args, &layout, joined),
        None => args.clone(),
    };
    let advertise = match args.advertise_address {
        Some(address) => address,
        None if !args.listen.ip().is_unspecified() => args.listen.ip(),
        None => own_address().context(
            "the address that others reach this machine by is not known; name it with --advertise-address",
        )?,
    };
    tasks::run(live(args, &layout, advertise, &lock))
}

/// The arguments of a server that has joined others: what all servers must have alike is theirs.
fn as_joined(args: &ServerArgs, layout: &Layout, joined: Joined) -> ServerArgs {
    let mut api = args.api.clone();
    api.store = joined.store(layout);
    ServerArgs {
        pod_cidr: joined.pod_cidrs,
        service_cidr: joined.service_cidrs,
        vxlan_port: Some(joined.vxlan_port),
        api,
        ..args.clone()
    }
}

/// The address of the link that leads to others. Nothing is sent.
fn own_address() -> Result<IpAddr> {
    // Documentation addresses (RFC 5737): any that is not on a link of this machine does.
    address_towards("192.0.2.1:9".parse().context("a constant address")?)
}

/// This machine's own address on the way to another.
pub fn address_towards(other: SocketAddr) -> Result<IpAddr> {
    let any: SocketAddr = match other {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let towards = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(other)?;
        Ok(socket.local_addr()?.ip())
    };
    towards().with_context(|| format!("this machine has no way to {other}"))
}

async fn live(
    args: &ServerArgs,
    layout: &Layout,
    advertise: IpAddr,
    lock: &InstanceLock,
) -> Result<()> {
    let mut tasks = Tasks::new()?;
    let settings = choose(args, layout)?;
    let server = control_plane::start_api(&settings, layout.root(), advertise, &args.api).await?;
    control_plane::serve_api(&server, &settings, advertise, &mut tasks).await?;
    let mut kubeconfigs = vec![layout.kubeconfig()];
    kubeconfigs.extend(args.kubeconfig.clone());
    control_plane::write_kubeconfig(&server, &settings, &kubeconfigs)?;
    settings::write_json(&layout.settings(), &settings)?;
    server_join::keep(layout, args.api.pki_dir.as_deref(), &args.api.store)?;
    let url = format!(
        "https://{}",
        SocketAddr::new(advertise, settings.listen.port())
    );
    let admin = server.client("kubernetes-admin", &["system:masters"]);
    let ca = server.pki().ca_certificate();
    publish(&admin, &url, ca, &settings, layout).await?;
    write_role(
        &server,
        layout,
        "controllers",
        "system:kube-controller-manager",
        &url,
    )?;
    write_role(&server, layout, "scheduler", "system:kube-scheduler", &url)?;
    let address = SocketAddr::new(advertise, settings.listen.port());
    let candidate = args.leader_elect.then(|| lock.candidate(address));
    let candidate = candidate.transpose()?;
    if !args.without.contains(&Part::Controllers) {
        let config = peapod_controllers::Config {
            root_ca_pem: ca.to_owned(),
            signing_key_pem: server.pki().ca_key().to_owned(),
            cluster_cidrs: control_plane::block_ranges(&settings.pod_cidrs),
            local_volumes_dir: layout.volumes(),
            node_grace: Duration::from_secs(args.node_monitor_grace_period),
            ..Default::default()
        };
        server.register_metrics(|registry| config.metrics.register(registry));
        if candidate.is_none() {
            server.hosts("kube-controller-manager");
        }
        let client = server.client("system:kube-controller-manager", &[]);
        control_plane::spawn_controllers(client, config, candidate.clone(), &mut tasks);
    }
    if !args.without.contains(&Part::Scheduler) {
        let config = peapod_scheduler::Config::default();
        server.register_metrics(|registry| config.metrics.register(registry));
        if candidate.is_none() {
            server.hosts("kube-scheduler");
        }
        let client = server.client("system:kube-scheduler", &[]);
        control_plane::spawn_scheduler(client, config, candidate, &mut tasks);
    }
    let ttl = Some(SignedDuration::from_hours(TOKEN_HOURS));
    let token = token::create(&admin, ttl, "made at the start of the server").await?;
    let mut state = state(&settings, layout, advertise);
    let netd = match args.node {
        true => Some(
            start_node(
                args, &server, &url, &mut state, &settings, layout, &mut tasks,
            )
            .await?,
        ),
        false => None,
    };
    state.write(layout)?;
    println!(
        "The cluster is at {url}; export KUBECONFIG={}",
        layout.kubeconfig().display()
    );
    println!("To make another machine a node of it, run there within {TOKEN_HOURS} hours:\n");
    println!("  {}\n", token::join_command(&url, &token, ca)?);
    let outcome = tasks.ended().await;
    tasks.stop().await;
    if let Some(netd) = netd {
        netd.stop().await;
    }
    server.close().await;
    outcome
}

/// The settings of an earlier start; what contradicts them is refused, since objects follow them.
fn choose(args: &ServerArgs, layout: &Layout) -> Result<Settings> {
    let wanted = Settings {
        node: match (args.node, &args.node_name) {
            (false, _) => String::new(),
            (true, Some(name)) => name.clone(),
            (true, None) => settings::node_name()?,
        },
        node_ip: None,
        listen: args.listen,
        pod_cidrs: args.pod_cidr.clone(),
        service_cidrs: args.service_cidr.clone(),
        node_cidr: IpNet::new_assert([0, 0, 0, 0].into(), 0),
        vxlan_port: args.vxlan_port.unwrap_or_else(settings::vxlan_port),
        cluster_domain: "cluster.local".to_owned(),
        nodes: None,
        fabric: None,
        cni: args.cni.settings(),
        runtime: args.runtime.clone(),
        network: None,
        store: Some(args.api.store.describe()),
    };
    let Some(kept) = settings::read_json::<Settings>(&layout.settings())? else {
        return Ok(wanted);
    };
    args.api.store.check_kept(kept.store.as_deref())?;
    kept.check_vxlan_port(args.vxlan_port)?;
    // A server that is no node any longer has a node's things to put back all the same.
    let wanted = Settings {
        node: match args.node {
            true => wanted.node,
            false => kept.node,
        },
        cni: wanted.cni.or(kept.cni),
        vxlan_port: kept.vxlan_port,
        runtime: wanted.runtime.or(kept.runtime),
        ..wanted
    };
    if kept.pod_cidrs != wanted.pod_cidrs || kept.service_cidrs != wanted.service_cidrs {
        bail!(
            "--pod-cidr or --service-cidr differs from what this cluster was made with (see {}); \
             keep them, or begin anew after `peapod down --purge`",
            layout.settings().display()
        );
    }
    Ok(wanted)
}

fn state(settings: &Settings, layout: &Layout, advertise: IpAddr) -> State {
    State {
        pid: std::process::id() as i32,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp::now(),
        listen: settings.listen.to_string(),
        kubeconfig: layout.kubeconfig(),
        node: String::new(),
        node_ip: advertise,
        containerd: PathBuf::new(),
        private_containerd: false,
        warnings: Vec::new(),
    }
}

/// Starts the agents of this machine's own node, and waits until it is ready.
async fn start_node(
    args: &ServerArgs,
    server: &ApiServer,
    url: &str,
    state: &mut State,
    settings: &Settings,
    layout: &Layout,
    tasks: &mut Tasks,
) -> Result<Arc<Netd>> {
    node::check_kubelet_port(state.node_ip)?;
    let socket =
        containerd::find_or_start(args.containerd.as_deref(), &layout.containerd()).await?;
    let own = NodeSettings {
        name: settings.node.clone(),
        ips: vec![state.node_ip],
        private_ips: Vec::new(),
        labels: Default::default(),
        taints: Vec::new(),
        cluster: settings.of_cluster(layout)?,
        server: url.to_owned(),
        containerd: None,
        cni: settings.cni.clone(),
        runtime: settings.runtime.clone(),
        netns: None,
    };
    let netd = node::start_in(server, &own, layout, socket.clone(), tasks).await?;
    let admin = server.client("kubernetes-admin", &["system:masters"]);
    tasks
        .while_starting(ready::nodes(admin, std::slice::from_ref(&own.name)))
        .await?;
    state.node = own.name;
    state.private_containerd = socket == launch::private_socket(&layout.containerd());
    state.containerd = socket;
    Ok(netd)
}

/// What machines that join must find: which cluster this is, and what every node must know.
async fn publish(
    client: &Client,
    url: &str,
    ca: &str,
    settings: &Settings,
    layout: &Layout,
) -> Result<()> {
    let cluster = settings.of_cluster(layout)?;
    let cluster = serde_json::to_string_pretty(&cluster)?;
    for (namespace, name, key, text) in [
        (
            PUBLIC,
            CLUSTER_INFO,
            KUBECONFIG,
            discovery::kubeconfig(url, ca),
        ),
        (SYSTEM, NODE_SETTINGS, SETTINGS, cluster),
    ] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {key: text},
        });
        let params = PatchParams::apply("peapod-server").force();
        let applied = maps.patch(name, &params, &Patch::Apply(map)).await;
        applied
            .map_err(crate::client::server_error)
            .with_context(|| format!("cannot publish ConfigMap {namespace}/{name}"))?;
    }
    Ok(())
}

/// A kubeconfig for a role that may run apart.
fn write_role(
    server: &peapod_apiserver::ApiServer,
    layout: &Layout,
    role: &str,
    user: &str,
    url: &str,
) -> Result<()> {
    let subject = peapod_apiserver::pki::Subject {
        name: user,
        groups: &[],
        sans: &[],
    };
    let pki = server.pki();
    let credential = pki.credential(role, &subject, Timestamp::now())?;
    let text = pki.kubeconfig(url, user, &credential);
    settings::write_private(&role_kubeconfig(layout.root(), role), text.as_bytes())
}

/// Where it is.
pub fn role_kubeconfig(data_dir: &Path, role: &str) -> PathBuf {
    data_dir.join(format!("{role}.kubeconfig"))
}
