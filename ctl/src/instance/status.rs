//! `peapod status`: what runs, since when, which versions, which nodes, what to know.

use std::process::ExitCode;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::Serialize;

use super::{Layout, State, warnings};
use crate::cli::{self, DataDir};

/// The arguments of `peapod status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    data_dir: DataDir,
    /// json
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
}

/// What `status -o json` prints; scripts rely on the names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    state: State,
    uptime_seconds: i64,
    nodes: Vec<NodeReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeReport {
    name: String,
    ready: bool,
    internal_ip: Option<String>,
    runtime: Option<String>,
    pods: Option<String>,
}

/// Runs `peapod status`; the status is 3 when nothing runs, as of a stopped service.
pub fn status(args: &StatusArgs) -> Result<ExitCode> {
    let layout = Layout::new(&args.data_dir.data_dir)?;
    let Some(mut state) = State::running(&layout)? else {
        println!(
            "peapod does not run from {}; start it with `peapod up`.",
            layout.root().display()
        );
        return Ok(ExitCode::from(3));
    };
    let nodes = cli::single_threaded()?.block_on(nodes(&state))?;
    let live = warnings::look(&layout, &state, &nodes);
    state.warnings.extend(live);
    let nodes = nodes.into_iter().map(report).collect();
    let uptime_seconds = Timestamp::now().duration_since(state.started_at).as_secs();
    let report = Report {
        state,
        uptime_seconds,
        nodes,
    };
    match args.output {
        Some(_) => println!("{}", serde_json::to_string_pretty(&report)?),
        None => print!("{}", text(&report)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn nodes(state: &State) -> Result<Vec<Node>> {
    let kubeconfig = Kubeconfig::read_from(&state.kubeconfig)
        .with_context(|| format!("cannot read {}", state.kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let nodes: Api<Node> = Api::all(Client::try_from(config)?);
    let list = nodes
        .list(&Default::default())
        .await
        .map_err(crate::client::server_error)?;
    Ok(list.items)
}

fn report(node: Node) -> NodeReport {
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    NodeReport {
        name: node.metadata.name.unwrap_or_default(),
        ready: peapod_api::conditions::is_true(&conditions, "Ready"),
        internal_ip: addresses
            .into_iter()
            .find(|a| a.type_ == "InternalIP")
            .map(|a| a.address),
        runtime: status.node_info.map(|info| info.container_runtime_version),
        pods: status
            .capacity
            .and_then(|capacity| capacity.get("pods").map(|q| q.0.clone())),
    }
}

fn text(report: &Report) -> String {
    let state = &report.state;
    let uptime = crate::client::human(report.uptime_seconds);
    let owner = if state.private_containerd {
        "its own"
    } else {
        "the machine's"
    };
    let mut lines = vec![
        format!(
            "peapod {} runs since {uptime} (pid {})",
            state.version, state.pid
        ),
        format!("API server  https://{}", state.listen),
        format!("kubeconfig  {}", state.kubeconfig.display()),
    ];
    if state.has_node() {
        lines.push(format!(
            "containerd  {} ({owner})",
            state.containerd.display()
        ));
    }
    for node in &report.nodes {
        let ready = if node.ready { "Ready" } else { "NotReady" };
        let ip = node.internal_ip.as_deref().unwrap_or("no address");
        let runtime = node.runtime.as_deref().unwrap_or("unknown runtime");
        lines.push(format!(
            "node        {} {ready}, {ip}, {runtime}",
            node.name
        ));
    }
    lines.extend(
        state
            .warnings
            .iter()
            .map(|warning| format!("warning     {warning}")),
    );
    lines.join("\n") + "\n"
}
