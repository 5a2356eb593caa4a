//! The nodes of `up --nodes N` and the fabric of `up --fabric`: their namespaces, what each
//! process starts from, and the processes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use peapod_api::labels;
use peapod_api::net::{BgpPeer, BgpPeerBfd, BgpPeerSpec};
use peapod_apiserver::ApiServer;
use peapod_apiserver::pki::Subject;

use super::Layout;
use super::runtime_flags::RuntimeFlags;
use super::settings::{self, Settings};
use crate::fabric;
use crate::fabric::child::Keep;
use crate::fabric::plan::{NodePlan, Plan};
use crate::roles::identity::{Files, Pair};
use crate::roles::node::{ClusterSettings, NodeSettings};
use crate::roles::tasks::Tasks;

/// What all nodes of the instance start from.
pub struct Seat<'a> {
    /// The instance's data directory.
    pub layout: &'a Layout,
    /// What every node must know.
    pub cluster: ClusterSettings,
    /// URL of the API server, as nodes reach it.
    pub server: String,
    /// The containerd that they share.
    pub containerd: PathBuf,
    /// What runs their containers.
    pub runtime: RuntimeFlags,
}

/// The plan of the nodes in namespaces, raised; `None` when the instance's only node is this
/// machine itself. Their network is chosen at the first start.
pub async fn plan(settings: &mut Settings, layout: &Layout) -> Result<Option<Plan>> {
    let nodes = settings.nodes.unwrap_or(1);
    if nodes == 1 && settings.fabric.is_none() {
        return Ok(None);
    }
    let id = fabric::id(layout.root());
    let network = match settings.network {
        Some(network) => network,
        None => fabric::choose_network(settings.node_cidr, &id)?,
    };
    settings.network = Some(network);
    let plan = Plan::new(&id, network, nodes, settings.fabric);
    let pods = settings.pod_cidrs.iter().map(|net| ("--pod-cidr", *net));
    let services = settings.service_cidrs.iter();
    let services = services.map(|net| ("--service-cidr", *net));
    fabric::must_be_free(&plan, &pods.chain(services).collect::<Vec<_>>())?;
    peapod_netd::links::node::enable_forwarding(&layout.network())?;
    fabric::raise(&plan).await?;
    fabric::route_cluster(&plan, &settings.service_cidrs).await?;
    fabric::route_cluster(&plan, &settings.pod_cidrs).await?;
    Ok(Some(plan))
}

/// Starts the processes of all nodes and routers, and keeps them.
pub async fn start(
    seat: &Seat<'_>,
    plan: &Plan,
    server: &ApiServer,
    tasks: &mut Tasks,
) -> Result<()> {
    let mut all = Vec::new();
    for router in &plan.routers {
        all.push(fabric::prepare_router(seat.layout, plan, router)?);
    }
    for node in &plan.nodes {
        all.push(prepare(seat, plan, node, server)?);
    }
    if !plan.routers.is_empty() {
        let client = server.client("kubernetes-admin", &["system:masters"]);
        speak_bgp(&client).await?;
    }
    let shutdown = tasks.shutdown.clone();
    tasks.spawn("keeping the nodes", fabric::keep_all(all, shutdown));
    Ok(())
}

/// Has all nodes speak BGP with the leaves behind their two ports. What is there already stays as
/// the user may have made it.
async fn speak_bgp(client: &Client) -> Result<()> {
    let peers: Api<BgpPeer> = Api::all(client.clone());
    for port in fabric::plan::PORTS {
        let spec = BgpPeerSpec {
            interface: Some(port.to_owned()),
            bfd: Some(BgpPeerBfd {
                interval_ms: None,
                multiplier: None,
            }),
            ..Default::default()
        };
        let peer = BgpPeer::new(&format!("leaf-{port}"), spec);
        match peers.create(&PostParams::default(), &peer).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.context("cannot have the nodes speak BGP with their leaves")?),
        }
    }
    Ok(())
}

/// Writes what a node's process starts from, and tells how to run it.
fn prepare(seat: &Seat<'_>, plan: &Plan, node: &NodePlan, server: &ApiServer) -> Result<Keep> {
    let layout = seat.layout.of_node(&node.name);
    std::fs::create_dir_all(layout.root())
        .with_context(|| format!("cannot create {}", layout.root().display()))?;
    let rack = node.rack.iter().cloned();
    let settings = NodeSettings {
        name: node.name.clone(),
        ips: node.ips.clone(),
        private_ips: Vec::new(),
        labels: rack.map(|rack| (labels::RACK.to_owned(), rack)).collect(),
        taints: Vec::new(),
        cluster: seat.cluster.clone(),
        server: seat.server.clone(),
        containerd: Some(seat.containerd.clone()),
        cni: None,
        runtime: seat.runtime.clone(),
        netns: Some(fabric::netns_path(plan, &node.name)),
    };
    settings::write_json(&layout.node_settings(), &settings)?;
    certify(&layout, &settings, server)?;
    Ok(Keep {
        name: node.name.clone(),
        args: vec!["node".into(), "--data-dir".into(), layout.root().into()],
        netns: plan.netns(&node.name),
        log: layout.log(),
    })
}

/// New certificates at every start: nobody has to approve what this process may sign itself.
fn certify(layout: &Layout, node: &NodeSettings, server: &ApiServer) -> Result<()> {
    let files = Files::new(layout);
    files.write_ca(server.pki().ca_certificate())?;
    let name = format!("system:node:{}", node.name);
    let mut sans = vec![node.name.clone()];
    sans.extend(node.ips.iter().map(ToString::to_string));
    for (file, sans) in [(files.client(), &[][..]), (files.serving(), &sans[..])] {
        let subject = Subject {
            name: &name,
            groups: &["system:nodes"],
            sans,
        };
        let made = server.pki().issue(&subject, Timestamp::now())?;
        let pair = Pair {
            certificate: made.certificate,
            key: made.key,
        };
        pair.write(&file)?;
    }
    let kubeconfig = files.kubeconfig(&node.server, &node.name);
    settings::write_private(&layout.kubeconfig(), kubeconfig.as_bytes())
}
