//! How the sessions with each `BgpPeer` are: nodes tell of theirs in their `BgpNode`s, and this loop
//! puts them together, so that `kubectl get bgppeers` shows the state of a neighbour.
//!
//! The core is [`gather`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use peapod_api::net::{BgpNode, BgpPeer, BgpPeerStatus, BgpSession};
use peapod_api::selector::Selector;

use crate::common::Key;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

/// Sessions that a status names, at most; its counts are of all.
const SESSIONS_MAX: usize = 16;

struct Peers(Context);

/// Wires the loop; its keys are `BgpPeer`s.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let peers = ctx.informers.bgp_peers.clone();
    let all = move || {
        let all = peers.all().into_iter();
        all.map(|peer| Key::of(&*peer)).collect::<Vec<_>>()
    };
    Loop::new(ctx, "bgp-peer")
        .on_self(&ctx.informers.bgp_peers)
        .on(&ctx.informers.bgp_nodes, |change: &Change<BgpNode>| {
            let mut names: Vec<String> = change.both().flat_map(peers_of).collect();
            names.sort();
            names.dedup();
            names.into_iter().map(Key::cluster).collect::<Vec<_>>()
        })
        .on(&ctx.informers.nodes, move |change: &Change<Node>| {
            // Which nodes a peer selects follows from their labels alone.
            match relabelled(change) {
                true => all(),
                false => Vec::new(),
            }
        })
        .workers(1)
        .run(tasks, Peers(ctx.clone()));
}

fn peers_of(node: &BgpNode) -> Vec<String> {
    let sessions = node.status.iter().flat_map(|status| &status.sessions);
    sessions.map(|session| session.peer.clone()).collect()
}

fn relabelled(change: &Change<Node>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.metadata.labels != new.metadata.labels,
        _ => true,
    }
}

/// The sessions of the selected nodes with a peer. A selector that cannot be read selects nothing.
fn gather(peer: &BgpPeer, nodes: &[Arc<Node>], told: &[Arc<BgpNode>]) -> BgpPeerStatus {
    let name = peer.metadata.name.as_deref().unwrap_or_default();
    let selected = nodes.iter().filter(|node| selects(peer, node));
    let mut desired = 0_u32;
    let mut sessions: Vec<BgpSession> = Vec::new();
    for node in selected {
        desired += 1;
        let node = node.metadata.name.as_deref().unwrap_or_default();
        let of_node = |told: &&Arc<BgpNode>| told.metadata.name.as_deref() == Some(node);
        let status = told
            .iter()
            .find(of_node)
            .and_then(|one| one.status.as_ref());
        let own = status.into_iter().flat_map(|status| &status.sessions);
        sessions.extend(own.filter(|one| one.peer == name).map(|one| BgpSession {
            node: Some(node.to_owned()),
            ..one.clone()
        }));
    }
    let up = sessions.iter().filter(|one| one.is_established()).count();
    let established = u32::try_from(up).unwrap_or(u32::MAX);
    sessions.sort_by_key(|one| (one.is_established(), one.node.clone()));
    let last_error = sessions
        .iter()
        .filter(|one| !one.is_established())
        .find_map(|one| one.last_error.clone());
    sessions.truncate(SESSIONS_MAX);
    BgpPeerStatus {
        desired,
        established,
        state: state(desired, established).to_owned(),
        sessions,
        last_error,
    }
}

fn state(desired: u32, established: u32) -> &'static str {
    match (desired, established) {
        (0, _) => "Unused",
        (_, 0) => "Down",
        (desired, established) if established < desired => "Degraded",
        _ => "Established",
    }
}

fn selects(peer: &BgpPeer, node: &Node) -> bool {
    let Some(selector) = &peer.spec.node_selector else {
        return true;
    };
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|all| all.get(key)).map(String::as_str);
    let selector = Selector::from_label_selector(selector);
    selector.is_ok_and(|selector| selector.matches_with(label))
}

impl Controller for Peers {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(peer) = informers.bgp_peers.get(key) else {
            return Ok(Outcome::Done);
        };
        let mut nodes = informers.nodes.all();
        nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let status = gather(&peer, &nodes, &informers.bgp_nodes.all());
        write::status(&self.0, &*peer, peer.status.as_ref(), &status).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer(selector: &serde_json::Value) -> BgpPeer {
        let peer = json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
            "metadata": {"name": "leaf"},
            "spec": {"interface": "eth1", "remoteAs": "external", "nodeSelector": selector}});
        serde_json::from_value(peer).unwrap()
    }

    fn nodes(count: usize) -> Vec<Arc<Node>> {
        let node = |n: usize| json!({"metadata": {"name": format!("n{n}"), "labels": {"n": n.to_string()}}});
        let nodes = (0..count).map(|n| serde_json::from_value(node(n)).unwrap());
        nodes.map(Arc::new).collect()
    }

    fn told(node: usize, state: &str, error: Option<&str>) -> Arc<BgpNode> {
        let session = |peer: &str| json!({"peer": peer, "state": state, "lastError": error});
        let node = json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpNode",
            "metadata": {"name": format!("n{node}")}, "spec": {},
            "status": {"sessions": [session("leaf"), session("other")]}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn sessions_are_counted_and_the_bad_ones_come_first() {
        let all = peer(&json!(null));
        let up = told(0, "Established", None);
        let down = told(1, "Active", Some("hold timer expired"));
        let status = gather(&all, &nodes(2), &[up.clone(), down]);
        assert_eq!((status.desired, status.established), (2, 1));
        assert_eq!(status.state, "Degraded");
        assert_eq!(status.last_error.as_deref(), Some("hold timer expired"));
        let first = &status.sessions[0];
        assert_eq!(first.node.as_deref(), Some("n1"));
        let well = gather(&all, &nodes(1), &[up]);
        assert_eq!(
            (well.state.as_str(), well.sessions.len()),
            ("Established", 1)
        );
        assert_eq!(gather(&all, &nodes(2), &[]).state, "Down");
    }

    #[test]
    fn only_what_is_selected_counts() {
        let one = peer(&json!({"matchLabels": {"n": "1"}}));
        let status = gather(&one, &nodes(3), &[told(0, "Established", None)]);
        assert_eq!((status.desired, status.established), (1, 0));
        let none = peer(&json!({"matchLabels": {"n": "9"}}));
        assert_eq!(gather(&none, &nodes(3), &[]).state, "Unused");
    }

    #[test]
    fn a_status_is_bounded() {
        let all: Vec<_> = (0..100).map(|n| told(n, "Idle", None)).collect();
        let status = gather(&peer(&json!(null)), &nodes(100), &all);
        assert_eq!((status.desired, status.sessions.len()), (100, SESSIONS_MAX));
    }
}
