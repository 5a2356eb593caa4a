//! The instance itself: one process that holds every part, wired together.
//!
//! The order of a start: the node's address and containerd (side by side with the store's
//! opening), the API server, then everything that is its client. Each part is a task that this
//! one owns; the first that ends in an error ends the instance, whose containers and rules stay
//! as they are.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use peapod_apiserver::ApiServer;
use peapod_apiserver::pki::Subject;
use peapod_netd::{DnsConfig, Netd};
use peapod_nodelet::make::etc::ClusterDns;
use peapod_nodelet::runtime::containerd::Containerd;
use peapod_nodelet::runtime::containerd::launch::{self, Choice};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::handshake::Reporter;
use super::settings::{self, Settings};
use super::state::{InstanceLock, State};
use super::up::UpArgs;
use super::{Layout, preflight, ready};

/// Where the kubelet API listens.
const KUBELET_PORT: u16 = 10250;
/// Most pods on the node: a /24 less what is not handed out.
const MAX_PODS: u32 = 250;

/// What an instance starts from.
pub struct Inputs<'a> {
    /// The command line.
    pub args: &'a UpArgs,
    /// The data directory.
    pub layout: &'a Layout,
    /// The cluster's settings.
    pub settings: Settings,
    /// Proof that no other instance runs, held to the end.
    pub _lock: InstanceLock,
}

/// Runs the instance until it is told to stop, or until a part fails.
pub fn run(inputs: Inputs<'_>, reporter: &mut Reporter) -> Result<()> {
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let outcome = runtime.block_on(live(inputs, reporter));
    // Blocking work that hangs (a mount, a dead disk) must not keep a stopped instance alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PEAPOD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_client=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

async fn live(inputs: Inputs<'_>, reporter: &mut Reporter) -> Result<()> {
    let mut told = stop_signals()?;
    let mut parts = Parts::start(&inputs, reporter).await?;
    parts.state.write(inputs.layout)?;
    reporter.ready(&parts.state);
    tracing::info!(node = parts.state.node, listen = %parts.state.listen, "ready");
    let outcome = loop {
        tokio::select! {
            _ = told.recv() => break Ok(()),
            ended = parts.tasks.join_next() => break outcome(ended),
            Ok(()) = parts.network_warnings.changed() => parts.describe_anew(inputs.layout),
        }
    };
    tracing::info!("stopping; containers and rules stay as they are");
    parts.shutdown.cancel();
    while let Some(ended) = parts.tasks.join_next().await {
        if let Err(error) = self::outcome(Some(ended)) {
            tracing::warn!(error = %crate::terminal::sentence(&error), "while stopping");
        }
    }
    parts.netd.stop().await;
    parts.server.close().await;
    outcome
}

/// SIGTERM and SIGINT as one stream.
fn stop_signals() -> Result<tokio::sync::mpsc::Receiver<()>> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot wait for signals")?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A second signal while the first is handled says nothing new.
                let _ = tell.try_send(());
            }
        });
    }
    Ok(told)
}

type Ended = std::result::Result<(&'static str, Result<()>), tokio::task::JoinError>;

fn outcome(ended: Option<Ended>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok((part, outcome))) => outcome.with_context(|| format!("{part} failed")),
        Some(Err(error)) => bail!("a part of peapod ended unexpectedly: {error}; see the log"),
    }
}

/// The running parts.
struct Parts {
    state: State,
    tasks: JoinSet<(&'static str, Result<()>)>,
    shutdown: CancellationToken,
    server: Arc<ApiServer>,
    netd: Arc<Netd>,
    network_warnings: tokio::sync::watch::Receiver<Vec<String>>,
}

impl Parts {
    async fn start(inputs: &Inputs<'_>, reporter: &mut Reporter) -> Result<Self> {
        let Inputs { args, layout, .. } = inputs;
        let mut settings = inputs.settings.clone();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();

        reporter.step("preparing the node's address");
        let node_ip = node_address(&settings, layout)?;
        settings.node_ip = Some(node_ip);
        settings::write_json(&layout.settings(), &settings)?;
        check_ports(&settings, node_ip)?;

        reporter.step("starting containerd and the API server");
        let mut api = api_config(&settings, layout, node_ip);
        args.api.apply(&mut api);
        let choice = args.containerd.clone().map_or(Choice::Auto, Choice::Socket);
        let containerd_dir = layout.containerd();
        let (socket, server) = tokio::join!(
            launch::find_or_start(&choice, &containerd_dir),
            ApiServer::start(api),
        );
        let socket = socket?;
        let server = Arc::new(server?);
        serve_api(&server, &settings, node_ip, &mut tasks, &shutdown).await?;
        write_kubeconfig(&server, &settings, args, layout)?;

        reporter.step("starting the network, the controllers and the scheduler");
        spawn_control_loops(&server, &settings, layout, &mut tasks, &shutdown);
        let netd = start_netd(&server, &settings, layout, node_ip, &shutdown).await?;
        server.register_metrics(|registry| netd.register_metrics(registry));

        reporter.step("waiting for the node to be ready");
        let runtime = Containerd::start(layout.runtime(socket.clone())).await?;
        let nodelet = nodelet_config(&server, &settings, layout, node_ip, Arc::new(runtime))?;
        spawn_nodelet(&server, nodelet, netd.clone(), &mut tasks, &shutdown);
        let admin = server.client("kubernetes-admin", &["system:masters"]);
        let dns = SocketAddr::new(settings.dns_address()?, 53);
        tokio::select! {
            ready = ready::wait(admin, &settings, dns) => ready?,
            ended = tasks.join_next() => {
                outcome(ended)?;
                bail!("a part of peapod stopped during the start; see the log");
            }
        }

        let mut network_warnings = netd.warnings();
        let mut warnings: Vec<String> = server.recovery().map(str::to_owned).into_iter().collect();
        warnings.extend(network_warnings.borrow_and_update().iter().cloned());
        let private_containerd = socket == launch::private_socket(&containerd_dir);
        let state = State {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Timestamp::now(),
            listen: settings.listen,
            kubeconfig: layout.kubeconfig(),
            node: settings.node.clone(),
            node_ip,
            containerd: socket,
            private_containerd,
            warnings,
        };
        Ok(Self {
            state,
            tasks,
            shutdown,
            server,
            netd,
            network_warnings,
        })
    }

    /// Tells other commands of warnings that have come or gone.
    fn describe_anew(&mut self, layout: &Layout) {
        let recovery = self.server.recovery().map(str::to_owned);
        let network = self.network_warnings.borrow_and_update().clone();
        self.state.warnings = recovery.into_iter().chain(network).collect();
        for warning in &self.state.warnings {
            tracing::warn!("{warning}");
        }
        if let Err(error) = self.state.write(layout) {
            tracing::warn!(error = %crate::terminal::sentence(&error), "cannot tell of warnings");
        }
    }
}

/// The ports on the node's address, before anything is changed. Another program has them only if
/// it listens on every address.
fn check_ports(settings: &Settings, node_ip: IpAddr) -> Result<()> {
    if !settings.listen.ip().is_unspecified() {
        let api = SocketAddr::new(node_ip, settings.listen.port());
        preflight::port(api, "pass --listen with another port")?;
    }
    let kubelet = SocketAddr::new(node_ip, KUBELET_PORT);
    preflight::port(kubelet, "the node agent needs it for logs and exec")
}

/// The node's own address, on `lo`, there before anything listens on it; the one it had before,
/// if it had one.
fn node_address(settings: &Settings, layout: &Layout) -> Result<IpAddr> {
    let given = match settings.node_ip {
        Some(ip) => peapod_netd::links::node::add_local_address(ip)
            .map(|()| ip)
            .map_err(Into::into),
        None => {
            let seed = format!("{} {}", settings.node, layout.root().display());
            peapod_netd::node_address::ensure(settings.node_cidr, &seed)
                .map_err(anyhow::Error::from)
        }
    };
    given.context("cannot put the node's address on lo; name another range with --node-cidr")
}

fn api_config(settings: &Settings, layout: &Layout, node_ip: IpAddr) -> peapod_apiserver::Config {
    let mut config = peapod_apiserver::Config::new(layout.root());
    config.service_cidrs = settings.service_cidrs.clone();
    config.cluster_domain = settings.cluster_domain.clone();
    config.advertise_address = node_ip;
    config.secure_port = settings.listen.port();
    config
}

async fn serve_api(
    server: &Arc<ApiServer>,
    settings: &Settings,
    node_ip: IpAddr,
    tasks: &mut JoinSet<(&'static str, Result<()>)>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut addresses = vec![settings.listen];
    if !settings.listen.ip().is_unspecified() {
        addresses.push(SocketAddr::new(node_ip, settings.listen.port()));
    }
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; pass --listen with another port")
        })?;
        listeners.push(listener);
    }
    let (server, shutdown) = (Arc::clone(server), shutdown.clone());
    tasks.spawn(async move {
        (
            "the API server",
            server.serve(listeners, shutdown).await.map_err(Into::into),
        )
    });
    Ok(())
}

fn write_kubeconfig(
    server: &ApiServer,
    settings: &Settings,
    args: &UpArgs,
    layout: &Layout,
) -> Result<()> {
    let mut reachable = settings.listen;
    if reachable.ip().is_unspecified() {
        reachable.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    let text = server.admin_kubeconfig(&format!("https://{reachable}"))?;
    for path in [Some(layout.kubeconfig()), args.kubeconfig.clone()]
        .into_iter()
        .flatten()
    {
        settings::write_private(&path, text.as_bytes())?;
    }
    Ok(())
}

fn spawn_control_loops(
    server: &ApiServer,
    settings: &Settings,
    layout: &Layout,
    tasks: &mut JoinSet<(&'static str, Result<()>)>,
    shutdown: &CancellationToken,
) {
    let client = server.client("system:kube-controller-manager", &[]);
    let config = peapod_controllers::Config {
        root_ca_pem: server.pki().ca_certificate().to_owned(),
        signing_key_pem: server.pki().ca_key().to_owned(),
        cluster_cidrs: settings
            .pod_cidrs
            .iter()
            .copied()
            .map(block_range)
            .collect(),
        local_volumes_dir: layout.volumes(),
        ..Default::default()
    };
    server.register_metrics(|registry| config.metrics.register(registry));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let ended = peapod_controllers::run(client, config, stop).await;
        ("the controllers", ended.map_err(Into::into))
    });
    let client = server.client("system:kube-scheduler", &[]);
    let config = peapod_scheduler::Config::default();
    server.register_metrics(|registry| config.metrics.register(registry));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let ended = peapod_scheduler::run(client, config, stop).await;
        ("the scheduler", ended.map_err(Into::into))
    });
}

/// A node gets a /24 of IPv4 and a /64 of IPv6, or all of a smaller range.
fn block_range(cidr: IpNet) -> peapod_controllers::BlockRange {
    let usual = if cidr.addr().is_ipv4() { 24 } else { 64 };
    peapod_controllers::BlockRange {
        cidr,
        block_prefix: usual.max(cidr.prefix_len()),
    }
}

async fn start_netd(
    server: &ApiServer,
    settings: &Settings,
    layout: &Layout,
    node_ip: IpAddr,
    shutdown: &CancellationToken,
) -> Result<Arc<Netd>> {
    let client = server.client(&format!("system:node:{}", settings.node), &["system:nodes"]);
    let mut dns = DnsConfig::new(vec![settings.dns_address()?]);
    dns.domain = settings.cluster_domain.clone();
    let config = peapod_netd::Config {
        node_name: settings.node.clone(),
        node_ips: vec![node_ip],
        // An address that the user chose is one that others may be meant to reach.
        private_ips: match settings.node_cidr.contains(&node_ip) {
            true => vec![node_ip, settings.dns_address()?],
            false => Vec::new(),
        },
        pod_cidrs: settings.pod_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        dns: Some(dns),
        mtu: None,
        state_dir: layout.network(),
    };
    Ok(Netd::start(client, config, shutdown.clone()).await?)
}

fn nodelet_config(
    server: &ApiServer,
    settings: &Settings,
    layout: &Layout,
    node_ip: IpAddr,
    runtime: Arc<Containerd>,
) -> Result<peapod_nodelet::Config> {
    let name = format!("system:node:{}", settings.node);
    let sans = [settings.node.clone(), node_ip.to_string()];
    let subject = Subject {
        name: &name,
        groups: &["system:nodes"],
        sans: &sans,
    };
    let serving = server
        .pki()
        .credential("kubelet", &subject, Timestamp::now())?;
    Ok(peapod_nodelet::Config {
        node_name: settings.node.clone(),
        node_ips: vec![node_ip],
        labels: Default::default(),
        data_dir: layout.node(),
        log_dir: layout.logs(),
        local_volumes_dir: layout.volumes(),
        runtime,
        cluster_dns: ClusterDns {
            servers: vec![settings.dns_address()?],
            domain: settings.cluster_domain.clone(),
        },
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        max_pods: MAX_PODS,
        reserved: Default::default(),
        server: Some(peapod_nodelet::ServerConfig {
            port: KUBELET_PORT,
            cert_pem: serving.certificate,
            key_pem: serving.key,
            client_ca_pem: server.pki().ca_certificate().to_owned(),
        }),
    })
}

fn spawn_nodelet(
    server: &ApiServer,
    config: peapod_nodelet::Config,
    netd: Arc<Netd>,
    tasks: &mut JoinSet<(&'static str, Result<()>)>,
    shutdown: &CancellationToken,
) {
    let client = server.client(
        &format!("system:node:{}", config.node_name),
        &["system:nodes"],
    );
    let stop = shutdown.clone();
    tasks.spawn(async move {
        (
            "the node agent",
            peapod_nodelet::run(client, config, netd, stop)
                .await
                .map_err(Into::into),
        )
    });
}
