//! The instance itself: the control plane, and the node in the same process or several nodes in
//! namespaces, each a process that this one keeps.
//!
//! The order of a start: the nodes' addresses and containerd (side by side with the store's
//! opening), the API server, then everything that is its client. Each part is a task that this
//! one owns; the first that ends in an error ends the instance, whose containers and rules stay
//! as they are.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use peapod_apiserver::ApiServer;
use peapod_netd::Netd;
use peapod_nodelet::runtime::containerd::launch;

use super::handshake::Reporter;
use super::settings::{self, Settings};
use super::state::{InstanceLock, State};
use super::up::UpArgs;
use super::{Layout, preflight, rack, ready};
use crate::fabric::complete;
use crate::fabric::plan::Plan;
use crate::roles::node::{self, NodeSettings};
use crate::roles::tasks::{self, Tasks};
use crate::roles::{containerd, control_plane};

/// What an instance starts from.
pub struct Inputs<'a> {
    /// The command line.
    pub args: &'a UpArgs,
    /// The data directory.
    pub layout: &'a Layout,
    /// The cluster's settings.
    pub settings: Settings,
    /// Proof that no other instance runs, held to the end.
    pub lock: InstanceLock,
}

/// Runs the instance until it is told to stop, or until a part fails.
pub fn run(inputs: Inputs<'_>, reporter: &mut Reporter) -> Result<()> {
    tasks::run(live(inputs, reporter))
}

async fn live(inputs: Inputs<'_>, reporter: &mut Reporter) -> Result<()> {
    let mut parts = Parts::start(&inputs, reporter).await?;
    parts.state.write(inputs.layout)?;
    reporter.ready(&parts.state);
    tracing::info!(node = parts.state.node, listen = %parts.state.listen, "ready");
    let outcome = loop {
        tokio::select! {
            ended = parts.tasks.ended() => break ended,
            () = changed(&mut parts.network_warnings) => parts.describe_anew(inputs.layout),
        }
    };
    tracing::info!("stopping; containers and rules stay as they are");
    parts.tasks.stop().await;
    if let Some(netd) = &parts.netd {
        netd.stop().await;
    }
    parts.server.close().await;
    outcome
}

type Warnings = tokio::sync::watch::Receiver<Vec<String>>;

/// Waits for other warnings; for ever where there are none to come.
async fn changed(warnings: &mut Option<Warnings>) {
    if let Some(warnings) = warnings
        && warnings.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The running parts.
struct Parts {
    state: State,
    tasks: Tasks,
    server: Arc<ApiServer>,
    /// The network agent of the node in this process.
    netd: Option<Arc<Netd>>,
    network_warnings: Option<Warnings>,
}

impl Parts {
    async fn start(inputs: &Inputs<'_>, reporter: &mut Reporter) -> Result<Self> {
        let Inputs { args, layout, .. } = inputs;
        let mut settings = inputs.settings.clone();
        let mut tasks = Tasks::new()?;

        reporter.step("preparing the node's address");
        let plan = rack::plan(&mut settings, layout).await?;
        let advertise = match &plan {
            Some(plan) => plan.gateways()[0],
            None => node_address(&settings, layout)?,
        };
        if plan.is_none() {
            settings.node_ip = Some(advertise);
        }
        settings::write_json(&layout.settings(), &settings)?;
        check_ports(&settings, advertise, plan.as_ref())?;

        reporter.step("starting containerd and the API server");
        let containerd_dir = layout.containerd();
        let (socket, server) = tokio::join!(
            containerd::find_or_start(args.containerd.as_deref(), &containerd_dir),
            control_plane::start_api(&settings, layout.root(), advertise, &args.api),
        );
        let (socket, server) = (socket?, server?);
        control_plane::serve_api(&server, &settings, advertise, &mut tasks).await?;
        let mut kubeconfigs = vec![layout.kubeconfig()];
        kubeconfigs.extend(args.kubeconfig.clone());
        control_plane::write_kubeconfig(&server, &settings, &kubeconfigs)?;

        reporter.step("starting the network, the controllers and the scheduler");
        // Over a store of its own nobody can be in turns with this process, and an idle cluster
        // writes nothing.
        let shared = args.api.store.is_shared();
        let candidate = shared.then(|| {
            let address = SocketAddr::new(advertise, settings.listen.port());
            inputs.lock.candidate(address)
        });
        spawn_control_loops(
            &server,
            &settings,
            inputs,
            candidate.transpose()?,
            &mut tasks,
        );
        let admin = server.client("kubernetes-admin", &["system:masters"]);
        let mut netd = None;
        let mut warnings: Vec<String> = server.recovery().map(str::to_owned).into_iter().collect();
        let mut first = (settings.node.clone(), advertise);
        if let Some(plan) = &plan {
            let seat = rack::Seat {
                layout,
                cluster: settings.of_cluster(layout)?,
                server: format!(
                    "https://{}",
                    SocketAddr::new(advertise, settings.listen.port())
                ),
                containerd: socket.clone(),
                runtime: settings.runtime.clone(),
            };
            rack::start(&seat, plan, &server, &mut tasks).await?;
            reporter.step("waiting for the nodes to be ready");
            let names: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
            let ready = ready::nodes(admin.clone(), &names);
            tasks.while_starting(ready).await.with_context(|| {
                format!("the nodes' logs are below {}", layout.nodes_dir().display())
            })?;
            if !plan.routers.is_empty() {
                let complete = complete::wait(&admin, layout.root(), |step| reporter.step(step));
                warnings.extend(tasks.while_starting(complete).await?);
            }
            first = (plan.nodes[0].name.clone(), plan.nodes[0].ips[0]);
        } else {
            let node = own_node(&settings, layout, advertise)?;
            let network =
                node::start_in(&server, &node, layout, socket.clone(), &mut tasks).await?;
            netd = Some(network.clone());
            reporter.step("waiting for the node to be ready");
            let dns = SocketAddr::new(node.cluster.dns, 53);
            let ready = ready::wait(admin, network.as_ref(), &settings, dns);
            tasks.while_starting(ready).await?;
        }

        let admin = server.client("kubernetes-admin", &["system:masters"]);
        tasks.while_starting(ready::takes_pods(admin)).await?;
        let mut network_warnings = netd.as_ref().map(|netd| netd.warnings());
        if let Some(network) = &mut network_warnings {
            warnings.extend(network.borrow_and_update().iter().cloned());
        }
        let private_containerd = socket == launch::private_socket(&containerd_dir);
        let state = State {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Timestamp::now(),
            listen: settings.listen.to_string(),
            kubeconfig: layout.kubeconfig(),
            node: first.0,
            node_ip: first.1,
            containerd: socket,
            private_containerd,
            warnings,
        };
        Ok(Self {
            state,
            tasks,
            server,
            netd,
            network_warnings,
        })
    }

    /// Tells other commands of warnings that have come or gone.
    fn describe_anew(&mut self, layout: &Layout) {
        let recovery = self.server.recovery().map(str::to_owned);
        let network = self.network_warnings.as_mut();
        let network = network.map(|network| network.borrow_and_update().clone());
        self.state.warnings = recovery
            .into_iter()
            .chain(network.into_iter().flatten())
            .collect();
        for warning in &self.state.warnings {
            tracing::warn!("{warning}");
        }
        if let Err(error) = self.state.write(layout) {
            tracing::warn!(error = %crate::terminal::sentence(&error), "cannot tell of warnings");
        }
    }
}

/// The ports on the address for pods and nodes, before anything is changed.
fn check_ports(settings: &Settings, advertise: IpAddr, plan: Option<&Plan>) -> Result<()> {
    if !settings.listen.ip().is_unspecified() && plan.is_none() {
        let api = SocketAddr::new(advertise, settings.listen.port());
        preflight::port(api, "pass --listen with another port")?;
    }
    match plan {
        Some(_) => Ok(()),
        None => node::check_kubelet_port(advertise),
    }
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

fn spawn_control_loops(
    server: &ApiServer,
    settings: &Settings,
    inputs: &Inputs<'_>,
    candidate: Option<String>,
    tasks: &mut Tasks,
) {
    let config = peapod_controllers::Config {
        root_ca_pem: server.pki().ca_certificate().to_owned(),
        signing_key_pem: server.pki().ca_key().to_owned(),
        cluster_cidrs: control_plane::block_ranges(&settings.pod_cidrs),
        local_volumes_dir: inputs.layout.volumes(),
        node_grace: std::time::Duration::from_secs(inputs.args.node_monitor_grace_period),
        ..Default::default()
    };
    server.register_metrics(|registry| config.metrics.register(registry));
    if candidate.is_none() {
        server.hosts("kube-controller-manager");
        server.hosts("kube-scheduler");
    }
    let client = server.client("system:kube-controller-manager", &[]);
    control_plane::spawn_controllers(client, config, candidate.clone(), tasks);
    let config = peapod_scheduler::Config::default();
    server.register_metrics(|registry| config.metrics.register(registry));
    let client = server.client("system:kube-scheduler", &[]);
    control_plane::spawn_scheduler(client, config, candidate, tasks);
}

/// The node in this process.
fn own_node(settings: &Settings, layout: &Layout, ip: IpAddr) -> Result<NodeSettings> {
    let cluster = settings.of_cluster(layout)?;
    Ok(NodeSettings {
        name: settings.node.clone(),
        ips: vec![ip],
        // An address that the user chose is one that others may be meant to reach.
        private_ips: match settings.node_cidr.contains(&ip) {
            true => vec![ip, cluster.dns],
            false => Vec::new(),
        },
        labels: Default::default(),
        taints: Vec::new(),
        cluster,
        server: control_plane::local_url(settings),
        containerd: None,
        cni: settings.cni.clone(),
        runtime: settings.runtime.clone(),
        netns: None,
    })
}
