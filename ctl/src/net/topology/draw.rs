//! What the nodes, their sessions and their paths make of the fabric. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Beyond, Leaf, Link, Node, Rack, Spine, Told, Topology};
use crate::net::peers::Session;

/// The topology that nodes, their sessions and their paths tell of.
pub(super) fn draw(
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
