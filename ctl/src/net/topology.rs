//! `peapod net topology`: nodes, leaves and spines, as far as the nodes' sessions tell.
//!
//! A leaf is what nodes have sessions with. What is beyond the leaves no session of a node
//! shows: spines are drawn with their names when the fabric runs on this machine, and its
//! routers can be asked; else by the AS numbers in the paths that a node of this machine has
//! learned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use peapod_router::control::{self, ShownPeer};
use serde::Serialize;

use super::Context;
use super::endpoints::racks;
use super::local;
use super::peers::{self, Session};
use super::show::Output;
use super::source::{list, text};

/// What a leaf is called that nothing tells the name of.
const UNKNOWN: &str = "(not known yet)";

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

/// The topology that nodes, their sessions and their paths tell of.
fn draw(
    ready: &BTreeMap<String, bool>,
    racks: &BTreeMap<String, String>,
    sessions: &[Session],
    paths: &BTreeSet<(u32, u32)>,
    told: &[Told],
) -> Topology {
    let mut leaves: BTreeMap<String, Leaf> = BTreeMap::new();
    let mut links = Vec::new();
    let mut asn_of = BTreeMap::new();
    let mut behind: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for session in sessions {
        asn_of.insert(session.node.clone(), session.asn);
        let name = session.remote_name().or_else(|| by_port(session, told));
        if let Some(name) = name {
            let leaf = leaves.entry(name.to_owned()).or_insert_with(|| Leaf {
                name: name.to_owned(),
                ..Default::default()
            });
            leaf.asn = leaf.asn.or(session.told.remote_as);
            leaf.router_id = leaf
                .router_id
                .take()
                .or_else(|| session.told.remote_router_id.clone());
            let rack = racks.get(&session.node).cloned().unwrap_or_default();
            behind.entry(rack).or_default().insert(name.to_owned());
        }
        links.push(Link {
            node: session.node.clone(),
            port: session.told.interface.clone(),
            leaf: name.map(str::to_owned),
            state: session.told.state.clone(),
        });
    }
    // A leaf of this machine's fabric knows of its links also where no node reports sessions.
    for one in told.iter().filter(|one| ready.contains_key(&one.neighbor)) {
        let (node, leaf) = (&one.neighbor, &one.router);
        let known = leaves.entry(leaf.clone()).or_insert_with(|| Leaf {
            name: leaf.clone(),
            ..Default::default()
        });
        known.asn = known.asn.or(one.asn);
        let rack = racks.get(node).cloned().unwrap_or_default();
        behind.entry(rack).or_default().insert(leaf.clone());
        let there = |link: &Link| link.node == *node && link.leaf.as_ref() == Some(leaf);
        if !links.iter().any(there) {
            links.push(Link {
                node: node.clone(),
                port: one.port.clone(),
                leaf: Some(leaf.clone()),
                state: one.state.clone(),
            });
        }
    }
    links.sort_by(|a, b| (&a.node, &a.port, &a.leaf).cmp(&(&b.node, &b.port, &b.leaf)));
    let mut by_rack: BTreeMap<String, Rack> = BTreeMap::new();
    for (node, ready) in ready {
        let name = racks.get(node).cloned().unwrap_or_default();
        let rack = by_rack.entry(name.clone()).or_default();
        rack.leaves = behind.get(&name).into_iter().flatten().cloned().collect();
        rack.name = name;
        rack.nodes.push(Node {
            name: node.clone(),
            asn: asn_of.get(node).copied().flatten(),
            ready: *ready,
        });
    }
    // Those without a rack last.
    let mut sorted: Vec<Rack> = by_rack.into_values().collect();
    sorted.sort_by_key(|rack| (rack.name.is_empty(), rack.name.clone()));
    let spines = spines(&leaves, told);
    let mut beyond = beyond(&leaves, sessions, paths);
    beyond.retain(|one| spines.iter().all(|spine| spine.asn != Some(one.asn)));
    Topology {
        racks: sorted,
        leaves: leaves.into_values().collect(),
        spines,
        beyond,
        links,
    }
}

/// The router of this machine's fabric that a port of a node leads to.
fn by_port<'a>(session: &Session, told: &'a [Told]) -> Option<&'a str> {
    let port = session.told.interface.as_ref()?;
    let mut there = told.iter();
    let leaf = there.find(|one| one.neighbor == session.node && one.port.as_ref() == Some(port))?;
    Some(&leaf.router)
}

/// The routers that have sessions with leaves and are none themselves.
fn spines(leaves: &BTreeMap<String, Leaf>, told: &[Told]) -> Vec<Spine> {
    let mut found: BTreeMap<&str, Spine> = BTreeMap::new();
    for one in told {
        if leaves.contains_key(&one.router) || !leaves.contains_key(&one.neighbor) {
            continue;
        }
        let spine = found.entry(&one.router).or_insert_with(|| Spine {
            name: one.router.clone(),
            asn: one.asn,
            links: Vec::new(),
        });
        spine.links.push((one.neighbor.clone(), one.state.clone()));
    }
    let mut spines: Vec<Spine> = found.into_values().collect();
    for spine in &mut spines {
        spine.links.sort();
    }
    spines
}

/// The AS numbers behind the leaves that are no node's and no leaf's own.
fn beyond(
    leaves: &BTreeMap<String, Leaf>,
    sessions: &[Session],
    paths: &BTreeSet<(u32, u32)>,
) -> Vec<Beyond> {
    let nodes: BTreeSet<u32> = sessions.iter().filter_map(|session| session.asn).collect();
    let own: BTreeSet<u32> = leaves.values().filter_map(|leaf| leaf.asn).collect();
    let mut found: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (first, second) in paths {
        if nodes.contains(second) || own.contains(second) {
            continue;
        }
        let through = leaves.values().filter(|leaf| leaf.asn == Some(*first));
        found
            .entry(*second)
            .or_default()
            .extend(through.map(|leaf| leaf.name.clone()));
    }
    let found = found.into_iter().map(|(asn, leaves)| Beyond {
        asn,
        leaves: leaves.into_iter().collect(),
    });
    found.collect()
}

/// For people: from the top of the fabric down to the nodes.
fn picture(topology: &Topology) -> String {
    let mut out = String::new();
    for one in &topology.beyond {
        let _ = writeln!(out, "AS {} (behind {})", one.asn, one.leaves.join(", "));
    }
    for spine in &topology.spines {
        let asn = spine
            .asn
            .map(|asn| format!(" (AS {asn})"))
            .unwrap_or_default();
        let links = spine
            .links
            .iter()
            .map(|(leaf, state)| match state.as_str() {
                "Established" => leaf.clone(),
                other => format!("{leaf} {other}"),
            });
        let links: Vec<String> = links.collect();
        let _ = writeln!(out, "spine {}{asn} ── {}", spine.name, links.join(", "));
    }
    for rack in &topology.racks {
        let name = if rack.name.is_empty() {
            "(no rack)"
        } else {
            &rack.name
        };
        let leaves = rack.leaves.iter().map(|name| {
            let leaf = topology.leaves.iter().find(|leaf| leaf.name == *name);
            match leaf.and_then(|leaf| leaf.asn) {
                Some(asn) => format!("{name} (AS {asn})"),
                None => name.clone(),
            }
        });
        let _ = writeln!(out, "rack {name}");
        let leaves: Vec<String> = leaves.collect();
        let sought = |link: &Link| rack.nodes.iter().any(|node| node.name == link.node);
        if !leaves.is_empty() {
            let _ = writeln!(out, "  leaves: {}", leaves.join(", "));
        } else if topology.links.iter().any(sought) {
            let _ = writeln!(out, "  leaves: none is known before a session with it is up");
        }
        for (nth, node) in rack.nodes.iter().enumerate() {
            let last = nth + 1 == rack.nodes.len();
            let corner = if last { "└─" } else { "├─" };
            let asn = node
                .asn
                .map(|asn| format!(" (AS {asn})"))
                .unwrap_or_default();
            let ready = if node.ready { "" } else { "  NOT READY" };
            let _ = writeln!(out, "  {corner} {}{asn}{ready}", node.name);
            let bar = if last { "  " } else { "│ " };
            for link in topology.links.iter().filter(|link| link.node == node.name) {
                let port = link.port.as_deref().unwrap_or("-");
                let mark = if link.state == "Established" {
                    "──"
                } else {
                    "╳╳"
                };
                let leaf = link.leaf.as_deref().unwrap_or(UNKNOWN);
                let _ = writeln!(out, "  {bar}   {port} {mark} {leaf}  {}", link.state);
            }
        }
    }
    out
}

/// Links of which both ends are known.
fn edges(topology: &Topology) -> impl Iterator<Item = (&str, &str, &str, bool)> {
    topology.links.iter().filter_map(|link| {
        let port = link.port.as_deref().unwrap_or_default();
        let up = link.state == "Established";
        Some((link.leaf.as_deref()?, link.node.as_str(), port, up))
    })
}

/// Names of nodes and leaves may be the same words; and neither takes every character.
fn id(kind: &str, name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("{kind}_{name}")
}

fn mermaid(topology: &Topology) -> String {
    let mut out = "graph TD\n".to_owned();
    for one in &topology.beyond {
        let _ = writeln!(out, "  as_{0}[\"AS {0}\"]", one.asn);
        for leaf in &one.leaves {
            let _ = writeln!(out, "  as_{} --- {}", one.asn, id("leaf", leaf));
        }
    }
    for spine in &topology.spines {
        let name = id("spine", &spine.name);
        let _ = writeln!(out, "  {name}[\"{}\"]", spine.name);
        for (leaf, _) in &spine.links {
            let _ = writeln!(out, "  {name} --- {}", id("leaf", leaf));
        }
    }
    for leaf in &topology.leaves {
        let _ = writeln!(out, "  {}[\"{}\"]", id("leaf", &leaf.name), leaf.name);
    }
    for rack in &topology.racks {
        if !rack.name.is_empty() {
            let _ = writeln!(
                out,
                "  subgraph {}[\"rack {}\"]",
                id("rack", &rack.name),
                rack.name
            );
        }
        for node in &rack.nodes {
            let _ = writeln!(out, "  {}([\"{}\"])", id("node", &node.name), node.name);
        }
        if !rack.name.is_empty() {
            out.push_str("  end\n");
        }
    }
    for (leaf, node, port, up) in edges(topology) {
        let line = if up { "---" } else { "-.-" };
        let label = if port.is_empty() {
            String::new()
        } else {
            format!("|{port}|")
        };
        let _ = writeln!(
            out,
            "  {} {line}{label} {}",
            id("leaf", leaf),
            id("node", node)
        );
    }
    out
}

fn dot(topology: &Topology) -> String {
    let mut out = "graph fabric {\n".to_owned();
    for one in &topology.beyond {
        let _ = writeln!(out, "  as_{0} [label=\"AS {0}\"];", one.asn);
        for leaf in &one.leaves {
            let _ = writeln!(out, "  as_{} -- {};", one.asn, id("leaf", leaf));
        }
    }
    for spine in &topology.spines {
        let name = id("spine", &spine.name);
        let _ = writeln!(out, "  {name} [label={:?}, shape=box];", spine.name);
        for (leaf, _) in &spine.links {
            let _ = writeln!(out, "  {name} -- {};", id("leaf", leaf));
        }
    }
    for leaf in &topology.leaves {
        let _ = writeln!(
            out,
            "  {} [label={:?}, shape=box];",
            id("leaf", &leaf.name),
            leaf.name
        );
    }
    for rack in &topology.racks {
        let _ = writeln!(
            out,
            "  subgraph cluster_{} {{ label={:?};",
            id("rack", &rack.name),
            rack.name
        );
        for node in &rack.nodes {
            let _ = writeln!(
                out,
                "    {} [label={:?}];",
                id("node", &node.name),
                node.name
            );
        }
        out.push_str("  }\n");
    }
    for (leaf, node, port, up) in edges(topology) {
        let style = if up { "solid" } else { "dashed" };
        let (leaf, node) = (id("leaf", leaf), id("node", node));
        let _ = writeln!(out, "  {leaf} -- {node} [label={port:?}, style={style}];");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::BgpSession;

    fn fabric() -> Topology {
        let session = |node: &str, port: &str, leaf: &str, asn, state: &str| Session {
            node: node.into(),
            asn: Some(if node == "n1" { 65001 } else { 65002 }),
            told: BgpSession {
                interface: Some(port.into()),
                remote_hostname: Some(leaf.into()),
                remote_as: Some(asn),
                state: state.into(),
                ..Default::default()
            },
        };
        let sessions = [
            session("n1", "eth1", "leaf1", 65101, "Established"),
            session("n1", "eth2", "leaf2", 65102, "Established"),
            session("n2", "eth1", "leaf1", 65101, "Established"),
            session("n2", "eth2", "leaf2", 65102, "Active"),
        ];
        let told = |router: &str, neighbor: &str, state: &str| Told {
            router: router.into(),
            asn: Some(65009),
            neighbor: neighbor.into(),
            port: None,
            state: state.into(),
        };
        let told = [
            told("spine1", "leaf1", "Established"),
            told("spine1", "leaf2", "Idle"),
            told("leaf1", "spine1", "Established"),
            told("leaf1", "n1", "Established"),
            told("leaf3", "n3", "Active"),
        ];
        let ready = [("n1", true), ("n2", true), ("n3", false)];
        let racks = [("n1", "r1"), ("n2", "r1")];
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        draw(
            &ready.map(|(name, ready)| (name.to_owned(), ready)).into(),
            &owned(&racks),
            &sessions,
            &[
                (65101, 65000),
                (65102, 65000),
                (65101, 65002),
                (65101, 65009),
            ]
            .into(),
            &told,
        )
    }

    #[test]
    fn the_picture_goes_from_the_fabric_down() {
        assert_eq!(
            picture(&fabric()),
            "AS 65000 (behind leaf1, leaf2)\n\
             spine spine1 (AS 65009) ── leaf1, leaf2 Idle\n\
             rack r1\n\
             \x20 leaves: leaf1 (AS 65101), leaf2 (AS 65102)\n\
             \x20 ├─ n1 (AS 65001)\n\
             \x20 │    eth1 ── leaf1  Established\n\
             \x20 │    eth2 ── leaf2  Established\n\
             \x20 └─ n2 (AS 65002)\n\
             \x20      eth1 ── leaf1  Established\n\
             \x20      eth2 ╳╳ leaf2  Active\n\
             rack (no rack)\n\
             \x20 leaves: leaf3 (AS 65009)\n\
             \x20 └─ n3  NOT READY\n\
             \x20      - ╳╳ leaf3  Active\n"
        );
    }

    #[test]
    fn without_sessions_leaves_are_known_by_what_links_are_described_as() {
        let waiting = |port: &str, heard: Option<&str>| Session {
            node: "n1".into(),
            asn: Some(65001),
            told: BgpSession {
                interface: Some(port.into()),
                neighbor: heard.map(Into::into),
                state: "Active".into(),
                ..Default::default()
            },
        };
        let sessions = [waiting("eth1", None), waiting("eth2", Some("fe80::2"))];
        let ready = [("n1".to_owned(), true)].into();
        let racks = [("n1".to_owned(), "r1".to_owned())].into();
        let drawn = |told: &[Told]| picture(&draw(&ready, &racks, &sessions, &[].into(), told));
        assert_eq!(
            drawn(&[]),
            "rack r1\n\
             \x20 leaves: none is known before a session with it is up\n\
             \x20 └─ n1 (AS 65001)\n\
             \x20      eth1 ╳╳ (not known yet)  Active\n\
             \x20      eth2 ╳╳ (not known yet)  Active\n"
        );
        let told = [("leaf1", "eth1"), ("leaf2", "eth2")].map(|(leaf, port)| Told {
            router: leaf.into(),
            asn: Some(65101),
            neighbor: "n1".into(),
            port: Some(port.into()),
            state: "Active".into(),
        });
        assert_eq!(
            drawn(&told),
            "rack r1\n\
             \x20 leaves: leaf1 (AS 65101), leaf2 (AS 65101)\n\
             \x20 └─ n1 (AS 65001)\n\
             \x20      eth1 ╳╳ leaf1  Active\n\
             \x20      eth2 ╳╳ leaf2  Active\n"
        );
    }

    #[test]
    fn graphs_have_every_link() {
        let topology = fabric();
        let mermaid = mermaid(&topology);
        assert!(
            mermaid.contains("leaf_leaf1 ---|eth1| node_n1"),
            "{mermaid}"
        );
        assert!(
            mermaid.contains("leaf_leaf2 -.-|eth2| node_n2"),
            "{mermaid}"
        );
        let dot = dot(&topology);
        assert_eq!(dot.matches(" -- ").count(), 5 + 2 + 2, "{dot}");
        assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    }
}
