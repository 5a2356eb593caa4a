//! A leaf that misbehaves, to a node: what the kernel has, and what the API is told.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use peapod_lab::script::Neighbor;
use peapod_lab::{Lab, eventually};
use serde_json::{Value, json};

use crate::rack::this_thread;
use crate::support::Node;

const NODE: &str = "10.0.1.1";
const LEAF: &str = "10.0.1.2";
const LEAF_AS: u32 = 65_101;

/// A node with a neighbour that says what it is told to.
struct Scripted {
    // Before its node: a namespace outlives what is in it.
    lab: Lab,
    node: Node,
}

impl Scripted {
    /// The neighbour's object says this, too.
    fn new(more: &Value) -> Self {
        let mut node = Node::without_agent();
        let mut lab = Lab::new();
        lab.adopt("node", &this_thread());
        lab.link(
            ("node", &format!("{NODE}/24")),
            ("leaf", &format!("{LEAF}/24")),
        );
        node.api.put(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "here", "uid": "u"}}));
        let mut spec = json!({"address": LEAF, "remoteAs": LEAF_AS, "passive": true});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        node.api
            .put(json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
            "metadata": {"name": "leaf"}, "spec": spec}));
        node.restart();
        Scripted { lab, node }
    }

    /// The neighbour's end of a session, once it is let in.
    fn neighbor(&self) -> Neighbor {
        let mut neighbor = None;
        eventually("the node lets its leaf in", || {
            let connect = || {
                let node: SocketAddr = format!("{NODE}:179").parse().unwrap();
                Neighbor::connect(node, LEAF_AS, LEAF.parse().unwrap()).ok()
            };
            neighbor = self.lab.spawn_in("leaf", connect).join().unwrap();
            neighbor.is_some()
        });
        neighbor.expect("it was let in")
    }

    fn session(&self) -> Value {
        let told = self.node.api.get("BgpNode", "/here").unwrap_or_default();
        told["status"]["sessions"][0].clone()
    }

    fn route(&self, prefix: &str, there: bool) {
        let hops: &[&str] = if there { &[LEAF] } else { &[] };
        self.lab.kernel_route("node", prefix, hops);
    }
}

fn announcement(neighbor: &Neighbor, prefixes: &[&str]) -> Vec<u8> {
    let hop: Ipv4Addr = LEAF.parse().unwrap();
    let prefixes: Vec<Ipv4Net> = prefixes.iter().map(|one| one.parse().unwrap()).collect();
    neighbor.announcement(hop, &prefixes)
}

/// One prefix more than it may send: the session ends, its routes go, and the API is told why.
#[test]
fn too_many_prefixes_end_the_session() {
    let rack = Scripted::new(&json!({"maxPrefixes": 2}));
    let mut leaf = rack.neighbor();
    let two = announcement(&leaf, &["10.5.0.0/16", "10.6.0.0/16"]);
    leaf.say_octets(&two).unwrap();
    rack.route("10.5.0.0/16", true);
    rack.route("10.6.0.0/16", true);
    let third = announcement(&leaf, &["10.7.0.0/16"]);
    leaf.say_octets(&third).unwrap();
    rack.route("10.5.0.0/16", false);
    rack.route("10.6.0.0/16", false);
    eventually("the API is told", || {
        let session = rack.session();
        let error = session["lastError"].as_str().unwrap_or_default();
        session["state"] != "Established" && error.to_lowercase().contains("prefix")
    });
    while leaf.hear().is_ok() {}
}

/// RFC 7606: a malformed attribute withdraws the routes of its UPDATE, and nothing else.
#[test]
fn a_malformed_update_withdraws_its_routes_only() {
    let rack = Scripted::new(&json!({}));
    let mut leaf = rack.neighbor();
    let both = announcement(&leaf, &["10.5.0.0/16", "10.6.0.0/16"]);
    leaf.say_octets(&both).unwrap();
    rack.route("10.5.0.0/16", true);
    // The same for one of them, with an ORIGIN that does not exist.
    let mut wrong = announcement(&leaf, &["10.5.0.0/16"]);
    let origin = wrong.windows(4).position(|four| four == [0x40, 1, 1, 0]);
    wrong[origin.expect("ORIGIN IGP") + 3] = 9;
    leaf.say_octets(&wrong).unwrap();
    rack.route("10.5.0.0/16", false);
    rack.route("10.6.0.0/16", true);
    eventually("the session is the same", || {
        let session = rack.session();
        session["state"] == "Established" && session["received"] == 1
    });
    let good = announcement(&leaf, &["10.5.0.0/16"]);
    leaf.say_octets(&good).unwrap();
    rack.route("10.5.0.0/16", true);
}
