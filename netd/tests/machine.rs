//! The agent among what else is on a machine.

mod support;

use peapod_api::attach::{HostPort, Protocol};
use peapod_netd::{cleanup, node_address};
use serde_json::json;
use support::{NODE_V4, Node, OUTSIDE, UPLINK, eventually, nft};

#[test]
fn a_firewall_that_drops_is_told_of_pods() {
    let mut node = Node::start();
    let pod = node.pod("a");
    node.outside.serve_tcp("outside", 80);
    node.here.serve_tcp("node", 8080);
    nft(
        "table inet other { chain forwarding { type filter hook forward priority 0; policy drop; }; \
         chain incoming { type filter hook input priority 0; policy drop; ct state established accept; }; }",
    );
    let outwards = || {
        pod.netns
            .ask_tcp_within(&format!("{OUTSIDE}:80"), support::SILENCE)
            .ok()
    };
    eventually("outside", outwards);
    assert_eq!(
        pod.netns.ask_tcp(&format!("{NODE_V4}:8080")).unwrap().0,
        "node"
    );
    node.stop();
    cleanup(&[], node.state()).unwrap();
    assert!(!node.kernel().contains("peapod"), "{}", node.kernel());
    assert!(node.kernel().contains("\"other\""));
}

#[test]
fn a_private_address_answers_this_machine_and_its_pods_only() {
    let mut node = Node::start();
    node.here.serve_tcp("node", 8080);
    node.outside
        .ip(&format!("route add {NODE_V4}/32 via {UPLINK}"));
    let private = format!("{NODE_V4}:8080");
    assert_eq!(node.outside.ask_tcp(&private).unwrap().0, "node");
    node.restart_with(|config| config.private_ips = config.node_ips.clone());
    let asked = node.outside.ask_tcp_within(&private, support::SILENCE);
    assert!(asked.is_err(), "{asked:?}");
    let shared = format!("{UPLINK}:8080");
    assert_eq!(node.outside.ask_tcp(&shared).unwrap().0, "node");
    assert_eq!(node.here.ask_tcp(&private).unwrap().0, "node");
    let pod = node.pod("a");
    assert_eq!(pod.netns.ask_tcp(&private).unwrap().0, "node");
}

#[test]
fn tables_that_are_flushed_are_made_anew() {
    let node = Node::start();
    let port = HostPort {
        host_ip: None,
        host_port: 8080,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let pod = node.pod_with_ports("a", vec![port]);
    pod.netns.serve_tcp("a", 80);
    node.service(json!({}));
    node.endpoints(&[&pod]);
    node.wait_for("10.96.1.1:80");
    nft("flush ruleset");
    node.wait_for("10.96.1.1:80");
    node.wait_for(&format!("{UPLINK}:8080"));
    assert_eq!(pod.netns.ask_tcp("10.96.1.1:80").unwrap().0, "a");
}

#[test]
fn the_machine_is_left_as_it_was() {
    let mut node = Node::without_agent();
    let settings = || {
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
            .map(|key| std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap())
    };
    // The kernel is done with the addresses that it gives by itself.
    eventually("addresses", || {
        (!node.kernel().contains("tentative")).then_some(())
    });
    let (before, settings_before) = (node.kernel(), settings());
    node.restart();
    let a = node.server("a");
    node.service(json!({"type": "NodePort"}));
    node.endpoints(&[&a]);
    node.wait_for("10.96.1.1:80");
    assert_ne!(settings(), settings_before);
    let dns = node.config().dns.unwrap().addresses;
    node.stop();
    for _ in 0..2 {
        cleanup(&dns, node.state()).unwrap();
        assert_eq!(node.kernel(), before);
        assert_eq!(settings(), settings_before);
    }
}

#[test]
fn a_node_address_is_stable_and_avoids_what_is_taken() {
    let node = Node::without_agent();
    let range = node_address::DEFAULT_V4.parse().unwrap();
    let first = node_address::ensure(range, "node").unwrap();
    assert_eq!(node_address::ensure(range, "node").unwrap(), first);
    node_address::remove(first).unwrap();
    node.here.ip(&format!("address add {first}/31 dev uplink"));
    let second = node_address::ensure(range, "node").unwrap();
    assert_ne!(second, first);
    node_address::remove(second).unwrap();
    node.here.ip("route add 10.243.0.0/16 dev uplink");
    let taken = node_address::ensure(range, "node").unwrap_err();
    assert!(taken.to_string().contains("name another range"), "{taken}");
}
