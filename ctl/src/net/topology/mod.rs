//! `peapod net topology`: nodes, leaves and spines, as far as the nodes' sessions tell.
//!
//! A leaf is what nodes have sessions with. What is beyond the leaves no session of a node
//! shows: spines are drawn with their names when the fabric runs on this machine, and its
//! routers can be asked; else by the AS numbers in the paths that a node of this machine has
//! learned.

mod draw;
mod graph;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use peapod_router::control::{self, ShownPeer};
use serde::Serialize;

use self::draw::draw;
use self::graph::{dot, mermaid};
use self::show::picture;
use super::Context;
use super::endpoints::racks;
use super::local;
use super::peers;
use super::show::Output;
use super::source::{list, text};

/// The picture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// Racks, with their nodes and leaves; the one without a name last.
    pub racks: Vec<Rack>,
    /// Leaves.
    pub leaves: Vec<Leaf>,
    /// Spines, of a fabric on this machine.
    pub spines: Vec<Spine>,
    /// AS numbers seen behind the leaves: spines, borders.
    pub beyond: Vec<Beyond>,
    /// Links between nodes and leaves.
    pub links: Vec<Link>,
}

/// A rack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rack {
    /// Its name, from the nodes' label.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The leaves that they have sessions with.
    pub leaves: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: Option<u32>,
    /// Whether it is ready.
    pub ready: bool,
}

/// A leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// Its hostname, router id or address.
    pub name: String,
    /// Its AS.
    pub asn: Option<u32>,
    /// Its router id.
    pub router_id: Option<String>,
}

/// A spine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spine {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: Option<u32>,
    /// The leaves that it has sessions with, and their state.
    pub links: Vec<(String, String)>,
}

/// What a router of a fabric on this machine says of one neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    router: String,
    asn: Option<u32>,
    neighbor: String,
    /// The neighbour's port, by what the link is described as.
    port: Option<String>,
    state: String,
}

/// An AS behind leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// Its number.
    pub asn: u32,
    /// The leaves through which it is seen.
    pub leaves: Vec<String>,
}

/// A session, as a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The node.
    pub node: String,
    /// Its port.
    pub port: Option<String>,
    /// The leaf; `None` while nothing tells which it is.
    pub leaf: Option<String>,
    /// State of the session.
    pub state: String,
}

/// Shows it.
pub async fn run(context: &Context) -> Result<()> {
    let nodes = list(&context.session, "/api/v1/nodes").await?;
    let sessions = peers::sessions(context).await?;
    let mut paths = BTreeSet::new();
    for node in local::nodes(&context.instance)? {
        if node.control.exists() {
            paths.extend(as_paths(&node.control));
        }
    }
    let ready: BTreeMap<String, bool> = nodes
        .iter()
        .map(|node| (text(node, "/metadata/name").to_owned(), is_ready(node)))
        .collect();
    let told = told(&local::routers(&context.instance)?);
    let topology = draw(&ready, &racks(&nodes), &sessions, &paths, &told);
    match context.format.output() {
        Some(Output::Mermaid) => print!("{}", mermaid(&topology)),
        Some(Output::Dot) => print!("{}", dot(&topology)),
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&topology)?),
        _ => print!("{}", picture(&topology)),
    }
    Ok(())
}

fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = super::source::items(node, "/status/conditions").iter();
    let mut ready = conditions.filter(|one| one["type"] == "Ready");
    ready.next().is_some_and(|one| one["status"] == "True")
}

/// What the routers of a fabric say. One that does not answer says nothing.
fn told(routers: &[local::LocalRouter]) -> Vec<Told> {
    let mut told = Vec::new();
    for router in routers {
        let peers = control::peers(&router.control).unwrap_or_default();
        told.extend(peers.into_iter().map(|shown| told_of(router, shown)));
    }
    told
}

/// A link is described as the fabric was put together: the member at its other end, and its port there.
fn told_of(router: &local::LocalRouter, shown: ShownPeer) -> Told {
    let peer = shown.peer;
    let described = peer.description.as_deref().unwrap_or_default();
    let (member, port) = described.split_once(' ').unzip();
    Told {
        router: router.name.clone(),
        asn: router.asn,
        neighbor: peer
            .hostname
            .or(member.map(str::to_owned))
            .unwrap_or(peer.name),
        port: port.map(str::to_owned),
        state: peer.state.to_string(),
    }
}

/// The first two AS numbers of each path that a speaker has learned.
fn as_paths(socket: &std::path::Path) -> BTreeSet<(u32, u32)> {
    let routes = control::routes(socket, None, None).unwrap_or_default();
    let paths = routes.into_iter().flat_map(|shown| shown.route.paths);
    paths
        .filter_map(|path| {
            let mut numbers = path.as_path.split_whitespace().map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect()
}
