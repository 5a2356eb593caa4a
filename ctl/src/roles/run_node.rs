//! `peapod node`: the agents of one node, in the foreground. What the node is stands in its data
//! directory, put there by `peapod join`, or by `peapod up` for its nodes in namespaces.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use peapod_api::attach::PodNetwork;
use peapod_netd::seam;
use peapod_nodelet::Serving;
use peapod_nodelet::runtime::containerd::launch;
use tokio::sync::watch;

use super::containerd;
use super::csr::{self, Wanted};
use super::identity::{Files, Identity, Pair, sleep_until};
use super::node::{self, NodeSettings};
use super::tasks::{self, Tasks};
use crate::instance::cni_flags::CniFlags;
use crate::instance::handshake::Reporter;
use crate::instance::runtime_flags::RuntimeFlags;
use crate::instance::settings::{read_json, write_json};
use crate::instance::state::InstanceLock;
use crate::instance::{Layout, State, layout, preflight, ready};

/// After a request for a serving certificate that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How long an attachment waits for a network agent that is away; then the pod tells of it, and
/// is tried again.
const NETD_PATIENCE: Duration = Duration::from_secs(30);

/// The arguments of `peapod node`.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Where the node's state lives
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// Leave these to processes of their own
    #[arg(long, value_name = "ROLE,...", value_delimiter = ',')]
    without: Vec<Part>,
    #[command(flatten)]
    cni: CniFlags,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `peapod netd`
    Netd,
}

/// Runs `peapod node`.
pub fn run(args: &NodeArgs) -> Result<()> {
    preflight::root()?;
    let layout = Layout::new(&args.data_dir)?;
    let mut reporter = Reporter::from_env();
    let outcome = (|| {
        let mut node = settings(&layout)?;
        let Some(_lock) = InstanceLock::take(&layout)? else {
            bail!(
                "another peapod runs from {}; see `peapod status`",
                layout.root().display()
            );
        };
        if let Some(cni) = args.cni.settings() {
            node.cni = Some(cni);
            write_json(&layout.node_settings(), &node)?;
        }
        let runtime = args.runtime.clone().or(node.runtime.clone());
        if runtime != node.runtime {
            node.runtime = runtime;
            write_json(&layout.node_settings(), &node)?;
        }
        let apart = args.without.contains(&Part::Netd);
        tasks::run(live(&layout, &node, apart, &mut reporter))
    })();
    if let Err(error) = &outcome {
        reporter.failed(&crate::terminal::sentence(error));
    }
    outcome
}

/// What the node of a data directory is.
pub fn settings(layout: &Layout) -> Result<NodeSettings> {
    let settings = read_json(&layout.node_settings())?;
    settings.with_context(|| {
        format!(
            "{} is no node's; make this machine one with `peapod join`",
            layout.root().display()
        )
    })
}

async fn live(
    layout: &Layout,
    node: &NodeSettings,
    netd_apart: bool,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut tasks = Tasks::new()?;
    let ip = node.ips.first().copied();
    let ip = ip.context("the node has no address; join the cluster anew")?;
    reporter.step("starting the network");
    let identity = Identity::open(layout, &node.name, &node.server)?;
    let (client, ca) = (identity.client(), identity.ca().to_owned());
    tasks.spawn_endless("following the API servers", identity.follow_servers());
    tasks.spawn_endless(
        "renewing the node's certificate",
        identity.renew(Duration::ZERO),
    );
    node::check_kubelet_port(ip)?;
    let netd = match netd_apart {
        true => None,
        false => Some(node::start_netd(client.clone(), node, layout, &tasks).await?),
    };
    let network: Arc<dyn PodNetwork> = match &netd {
        Some(netd) => netd.clone(),
        None => Arc::new(seam::Client::new(&layout.netd_socket(), NETD_PATIENCE)),
    };

    reporter.step("starting containerd and the node agent");
    let socket =
        containerd::find_or_start(node.containerd.as_deref(), &layout.containerd()).await?;
    let serving = serving_certificate(layout, node, client.clone(), &mut tasks)?;
    let server = peapod_nodelet::ServerConfig {
        port: node::KUBELET_PORT,
        serving,
        client_ca_pem: ca,
        agents: node::agents(layout),
    };
    let (agent, at) = (client.clone(), socket.clone());
    node::spawn_nodelet(agent, node, layout, at, server, network, &mut tasks).await?;

    reporter.step("waiting for the node to be ready");
    let names = [node.name.clone()];
    tasks.while_starting(ready::nodes(client, &names)).await?;
    // Of an agent apart its own log tells.
    let mut warnings = match &netd {
        Some(netd) => netd.warnings(),
        None => watch::channel(Vec::new()).1,
    };
    let mut state = State {
        pid: std::process::id() as i32,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp::now(),
        listen: node.server.trim_start_matches("https://").to_owned(),
        kubeconfig: layout.kubeconfig(),
        node: node.name.clone(),
        node_ip: ip,
        private_containerd: socket == launch::private_socket(&layout.containerd()),
        containerd: socket,
        warnings: warnings.borrow_and_update().clone(),
    };
    state.write(layout)?;
    reporter.ready(&state);
    tracing::info!(node = node.name, %ip, server = node.server, "ready");
    let outcome = loop {
        tokio::select! {
            ended = tasks.ended() => break ended,
            Ok(()) = warnings.changed() => {
                state.warnings = warnings.borrow_and_update().clone();
                state.write(layout)?;
            }
        }
    };
    tracing::info!("stopping; containers and rules stay as they are");
    tasks.stop().await;
    if let Some(netd) = netd {
        netd.stop().await;
    }
    outcome
}

/// The certificate that is kept, or one of the node's own until the cluster has certified it.
fn serving_certificate(
    layout: &Layout,
    node: &NodeSettings,
    client: Client,
    tasks: &mut Tasks,
) -> Result<watch::Receiver<Serving>> {
    let wanted = Wanted::serving(&node.name, &node.ips);
    let file = Files::new(layout).serving();
    let kept = Pair::read(&file).ok();
    let first = match &kept {
        Some(pair) => pair.clone(),
        None => wanted.self_signed()?,
    };
    let (show, shown) = watch::channel(serving(first));
    let (name, ips) = (node.name.clone(), node.ips.clone());
    tasks.spawn_endless("renewing the node's serving certificate", async move {
        let mut kept = kept;
        loop {
            match &kept {
                Some(pair) => sleep_until(pair.renew_at()?).await,
                None => known(&client, &name, &ips).await?,
            }
            match csr::request(&client, &wanted).await {
                Ok(pair) => {
                    pair.write(&file)?;
                    show.send_replace(serving(pair.clone()));
                    kept = Some(pair);
                    tracing::info!("the node has a serving certificate of the cluster");
                }
                Err(error) => {
                    let error = crate::terminal::sentence(&error);
                    tracing::warn!(%error, "logs and exec wait for a serving certificate");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        #[expect(unreachable_code, reason = "names the type of the task's outcome")]
        anyhow::Ok(())
    });
    Ok(shown)
}

fn serving(pair: Pair) -> Serving {
    Serving {
        cert_pem: pair.certificate,
        key_pem: pair.key,
    }
}

/// Waits until the API knows the node by its addresses: a certificate is only for those.
async fn known(client: &Client, name: &str, ips: &[std::net::IpAddr]) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let has = |node: Option<&Node>| {
        let status = node.and_then(|node| node.status.as_ref());
        let addresses = status.and_then(|status| status.addresses.as_deref());
        ips.iter().all(|ip| {
            let mut all = addresses.unwrap_or_default().iter();
            all.any(|one| one.address == ip.to_string())
        })
    };
    await_condition(nodes, name, has)
        .await
        .context("cannot watch the node")?;
    Ok(())
}
