//! Pods' links and addresses.

mod support;

use peapod_api::attach::PodNetwork;
use support::{NODE_V4, Node, OUTSIDE, UPLINK};

#[test]
fn pods_and_the_node_reach_each_other_by_their_own_addresses() {
    let node = Node::start();
    let (a, b) = (node.server("a"), node.server("b"));
    for (ip, own) in [(b.v4(), a.v4()), (b.v6(), a.v6())] {
        let server = std::net::SocketAddr::new(ip, 80).to_string();
        assert_eq!(a.netns.ask_tcp(&server).unwrap(), ("b".into(), own));
    }
    node.here.serve_tcp("node", 8080);
    let to_node = a.netns.ask_tcp(&format!("{NODE_V4}:8080")).unwrap();
    assert_eq!(to_node, ("node".into(), a.v4()));
    let from_node = node.here.ask_tcp(&format!("{}:80", a.v4())).unwrap();
    assert_eq!(from_node, ("a".into(), NODE_V4.parse().unwrap()));
}

#[test]
fn only_what_leaves_the_cluster_is_masqueraded() {
    let node = Node::start();
    let pod = node.pod("a");
    node.outside.serve_tcp("outside", 80);
    let seen = pod.netns.ask_tcp(&format!("{OUTSIDE}:80")).unwrap();
    assert_eq!(seen, ("outside".into(), UPLINK.parse().unwrap()));
}

#[test]
fn attaching_again_is_the_same_attachment() {
    let node = Node::start();
    let pod = node.pod("a");
    let before = node.kernel();
    let again = node.attach(&pod.reference, &pod.netns, vec![]).unwrap();
    assert_eq!(again, pod.reply);
    assert_eq!(node.kernel(), before);
    let new = support::Namespace::new();
    let elsewhere = node.attach(&pod.reference, &new, vec![]).unwrap();
    assert_eq!(elsewhere, pod.reply);
    new.serve_tcp("moved", 80);
    let answer = node.here.ask_tcp(&format!("{}:80", pod.v4())).unwrap();
    assert_eq!(answer.0, "moved");
}

#[test]
fn a_restart_finds_everything_and_changes_nothing() {
    let mut node = Node::start();
    let (a, b) = (node.server("a"), node.server("b"));
    node.service(serde_json::json!({}));
    node.endpoints(&[&a, &b]);
    node.wait_for("10.96.1.1:80");
    let before = node.kernel();
    node.restart();
    assert_eq!(node.kernel(), before);
    let attached = node.block_on(node.netd().attached()).unwrap();
    assert_eq!(attached.len(), 2);
    let c = node.pod("c");
    assert!(c.v4() != a.v4() && c.v4() != b.v4());
}

#[test]
fn a_detached_pod_leaves_nothing() {
    let node = Node::start();
    let before = node.kernel();
    let pod = node.pod("a");
    node.detach(&pod);
    node.detach(&pod);
    support::eventually("the link is gone", || {
        (node.kernel() == before).then_some(())
    });
    assert_eq!(node.block_on(node.netd().attached()).unwrap(), []);
}
