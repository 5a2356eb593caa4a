//! The node and its leaf: BGP as the API says, with FRR on the other end.

mod support;

use serde_json::{Value, json};
use support::leaf::{Leaf, patiently, route};
use support::{NODE_V4, Node, OUTSIDE, Pod, UPLINK};

/// The node's block.
const BLOCK: &str = "10.244.1.0/24";
/// A prefix that the leaf announces.
const BEYOND: &str = "198.51.100.0/24";
/// An address of a load balancer.
const BALANCER: &str = "203.0.113.9";

const LEAF: &str = "
hostname leaf1
ip route 198.51.100.0/24 blackhole
router bgp 65000
 bgp router-id 192.0.2.10
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as external
 neighbor 192.0.2.1 timers connect 1
 address-family ipv4 unicast
  network 198.51.100.0/24
 exit-address-family
";

fn node_object(node: &Node, annotations: Value) {
    node.api.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "uid": "u", "annotations": annotations}}));
}

/// A node with a session to a leaf, and with a service behind a load balancer's address.
fn connected() -> (Node, Leaf, Pod) {
    let node = Node::start();
    let leaf = Leaf::start(&node.outside, LEAF);
    node_object(&node, json!({}));
    let server = node.server("server");
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER]}));
    node.endpoints(&[&server]);
    node.api
        .put(json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
        "metadata": {"name": "leaf"}, "spec": {"address": OUTSIDE, "remoteAs": 65000}}));
    patiently("the leaf learns the block", || leaf.routes(BLOCK));
    patiently("and the service", || leaf.routes(BALANCER));
    (node, leaf, server)
}

#[test]
fn what_is_announced_follows_the_api() {
    let (node, leaf, server) = connected();
    patiently("the node learns what is beyond", || {
        route(&node.here, BEYOND).contains(OUTSIDE)
    });
    let answer = node.outside.ask_tcp(&format!("{BALANCER}:80")).unwrap();
    assert_eq!(answer.0, "server");
    // What the node itself sends comes from its own address, not from another that it has.
    assert!(route(&node.here, BEYOND).contains(&format!("src {NODE_V4}")));
    // The API is told.
    patiently("the session is told of", || {
        let told = node.api.get("BgpNode", "/here").unwrap_or_default();
        let session = &told["status"]["sessions"][0];
        session["state"] == "Established"
            && session["peer"] == "leaf"
            && session["remoteHostname"] == "leaf1"
            && session["received"].as_u64() >= Some(1)
    });
    // No endpoint, no route; the block stays.
    node.endpoints(&[]);
    patiently("the service is withdrawn", || !leaf.routes(BALANCER));
    assert!(leaf.routes(BLOCK));
    node.endpoints(&[&server]);
    patiently("and announced again", || leaf.routes(BALANCER));
    // Endpoints elsewhere only, and the policy wants one here.
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER],
        "externalTrafficPolicy": "Local"}));
    node.endpoints_on("there", &[&server]);
    node.endpoints(&[]);
    patiently("it is no longer this node's", || !leaf.routes(BALANCER));
    // Without the peer nothing is left, on either side.
    node.api.delete("BgpPeer", "/leaf");
    patiently("the leaf forgets", || !leaf.routes(BLOCK));
    patiently("the node forgets", || route(&node.here, BEYOND).is_empty());
}

/// With a policy of `Local` others are to be preferred as soon as the last endpoint here is about
/// to end; who comes meanwhile is served.
#[test]
fn a_service_is_withdrawn_before_its_last_endpoint_is_gone() {
    let (node, leaf, server) = connected();
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER],
        "externalTrafficPolicy": "Local"}));
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    node.endpoints_that("here", &[&server], &ending);
    patiently("the service is withdrawn", || !leaf.routes(BALANCER));
    // Somebody who has not heard of it yet.
    node.outside
        .ip(&format!("route add {BALANCER} via {UPLINK}"));
    let answer = node.outside.ask_tcp(&format!("{BALANCER}:80")).unwrap();
    assert_eq!(answer.0, "server");
    node.outside
        .ip(&format!("route del {BALANCER} via {UPLINK}"));
    node.endpoints_that("here", &[&server], &json!({"ready": true}));
    patiently("it is announced again", || leaf.routes(BALANCER));
}

#[test]
fn a_node_leaves_in_steps_and_comes_back() {
    let (node, leaf, _server) = connected();
    assert!(!leaf.is_shutting_down(BLOCK));
    node_object(&node, json!({"net.peapod.dev/drain": "graceful"}));
    patiently("others are to be preferred", || {
        leaf.is_shutting_down(BLOCK) && leaf.is_shutting_down(&format!("{BALANCER}/32"))
    });
    assert!(leaf.routes(BALANCER));
    node_object(&node, json!({"net.peapod.dev/drain": "services"}));
    patiently("services go, pods stay", || !leaf.routes(BALANCER));
    assert!(leaf.routes(BLOCK));
    node_object(&node, json!({}));
    patiently("all is as before", || {
        leaf.routes(BALANCER) && !leaf.is_shutting_down(BLOCK)
    });
}

#[test]
fn a_planned_restart_is_not_seen() {
    let (mut node, leaf, _server) = connected();
    patiently("the node learns what is beyond", || {
        !route(&node.here, BEYOND).is_empty()
    });
    let said = |leaf: &Leaf| leaf.bgp(BLOCK)["paths"][0]["lastUpdate"]["epoch"].clone();
    let before = said(&leaf);
    let unseen = |node: &Node| {
        assert!(
            leaf.routes(BLOCK) && leaf.routes(BALANCER),
            "the leaf waits"
        );
        assert!(!route(&node.here, BEYOND).is_empty(), "the kernel forwards");
    };
    node.stop();
    unseen(&node);
    node.restart();
    patiently("the node says again what it said", || {
        unseen(&node);
        said(&leaf) != before
    });
    // What it has from the leaf comes last.
    patiently("the leaf is heard again", || {
        unseen(&node);
        let told = node.api.get("BgpNode", "/here").unwrap_or_default();
        let session = &told["status"]["sessions"][0];
        session["state"] == "Established" && session["received"].as_u64() >= Some(1)
    });
}
