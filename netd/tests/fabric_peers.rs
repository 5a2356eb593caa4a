//! What a `BgpPeer` asks for besides the neighbour, with FRR on the other end.

mod support;

use serde_json::{Value, json};
use support::leaf::{Leaf, patiently, route};
use support::{Node, OUTSIDE};

/// The node's block.
const BLOCK: &str = "10.244.1.0/24";
/// A prefix that the leaf announces.
const BEYOND: &str = "198.51.100.0/24";

const LEAF: &str = "
hostname leaf1
ip route 198.51.100.0/24 blackhole
router bgp 65000
 bgp router-id 192.0.2.10
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as external
 neighbor 192.0.2.1 timers connect 1
 neighbor 192.0.2.1 password first
 address-family ipv4 unicast
  network 198.51.100.0/24
 exit-address-family
";

fn node() -> Node {
    let node = Node::start();
    node.api.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "uid": "u"}}));
    node
}

/// The neighbour outside, with further fields of its spec.
fn peer(node: &Node, more: Value) {
    let mut peer = json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
        "metadata": {"name": "leaf"},
        "spec": {"address": OUTSIDE, "remoteAs": 65000, "timers": {"connectRetrySeconds": 1}}});
    for (key, value) in more.as_object().unwrap() {
        peer["spec"][key] = value.clone();
    }
    node.api.put(peer);
}

fn secret(node: &Node, data: Value) {
    node.api.put(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "kube-system", "name": "bgp"}, "data": data}));
}

/// The one session, as the API is told of it.
fn session(node: &Node) -> Value {
    let told = node.api.get("BgpNode", "/here").unwrap_or_default();
    told["status"]["sessions"][0].clone()
}

#[test]
fn sessions_are_signed_with_what_the_secret_says() {
    let node = node();
    let leaf = Leaf::start(&node.outside, LEAF);
    peer(&node, json!({"auth": {"secretRef": {"name": "bgp"}}}));
    patiently("the missing secret is named", || {
        session(&node)["lastError"] == "Secret kube-system/bgp does not exist"
    });
    assert_eq!(session(&node)["state"], "Idle");
    // `first`, under another name than is asked for.
    secret(&node, json!({"other": "Zmlyc3Q="}));
    patiently("the missing key is named", || {
        session(&node)["lastError"] == "Secret kube-system/bgp has no key \"password\""
    });
    // A password that the leaf does not have.
    secret(&node, json!({"password": "d3Jvbmc="}));
    patiently("a session is tried in vain", || {
        let state = session(&node)["state"].clone();
        state == "Connect" || state == "Active"
    });
    assert!(!leaf.routes(BLOCK), "nothing is said to whom does not sign");
    secret(&node, json!({"password": "Zmlyc3Q="}));
    patiently("the right password leads to a session", || {
        leaf.routes(BLOCK) && !route(&node.here, BEYOND).is_empty()
    });
    // It is changed: here first, then there.
    secret(&node, json!({"password": "c2Vjb25k"}));
    patiently("the session ends", || {
        session(&node)["state"] != "Established"
    });
    leaf.configure(&["router bgp 65000", "neighbor 192.0.2.1 password second"]);
    patiently("and comes back with the new one", || {
        session(&node)["state"] == "Established" && leaf.routes(BLOCK)
    });
    // Without the secret there is no session, and why is told.
    node.api.delete("Secret", "kube-system/bgp");
    patiently("the session ends with the secret", || {
        session(&node)["state"] == "Idle" && !leaf.routes(BLOCK)
    });
    assert_eq!(
        session(&node)["lastError"],
        "Secret kube-system/bgp does not exist"
    );
    // Neither end wants a signature any more.
    peer(&node, json!({"auth": null}));
    leaf.configure(&["router bgp 65000", "no neighbor 192.0.2.1 password"]);
    patiently("the session is up unsigned", || {
        session(&node)["state"] == "Established" && leaf.routes(BLOCK)
    });
}
