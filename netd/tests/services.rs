//! Services, by real connections.

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::json;
use support::{NODE_V4, Node, OUTSIDE, SILENCE, UPLINK, eventually, nft};

#[test]
fn a_cluster_address_leads_to_every_endpoint() {
    let node = Node::start();
    let (a, b, client) = (node.server("a"), node.server("b"), node.pod("client"));
    node.service(json!({}));
    node.endpoints(&[&a, &b]);
    node.wait_for("10.96.1.1:80");
    for (server, own) in [
        ("10.96.1.1:80", client.v4()),
        ("[fd00:10:96::11]:80", client.v6()),
    ] {
        node.wait_for(server);
        let answers = (0..40).map(|_| client.netns.ask_tcp(server).unwrap());
        let (names, sources): (BTreeSet<_>, BTreeSet<_>) = answers.unzip();
        assert_eq!(names, ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(sources, [own].into());
        let answers = (0..40).map(|_| client.netns.udp(server).ask().unwrap().0);
        assert_eq!(answers.collect::<BTreeSet<_>>(), names);
    }
}

#[test]
fn an_endpoint_added_and_removed_is_followed() {
    let node = Node::start();
    let (a, b, client) = (node.server("a"), node.server("b"), node.pod("client"));
    node.service(json!({}));
    node.endpoints(&[&a]);
    node.wait_for("10.96.1.1:80");
    let udp = client.netns.udp("10.96.1.1:80");
    assert_eq!(udp.ask().unwrap().0, "a");
    node.endpoints(&[&b]);
    let now = || client.netns.ask_tcp("10.96.1.1:80").unwrap().0;
    eventually("b takes over", || (now() == "b").then_some(()));
    // The same socket: the kernel's memory of the old endpoint must be gone.
    // An answer of the old endpoint that is under way when that happens is lost, as UDP may be.
    let old_socket = || (udp.ask_within(SILENCE).ok()?.0 == "b").then_some(());
    eventually("b has the old socket, too", old_socket);
}

#[test]
fn without_endpoints_a_client_is_refused_at_once() {
    let node = Node::start();
    let client = node.pod("client");
    node.service(json!({}));
    for server in [
        "10.96.1.1:80",
        "[fd00:10:96::11]:80",
        "10.96.1.1:81",
        "10.96.77.77:80",
    ] {
        for from in [&client.netns, &node.here] {
            let refused = from.ask_tcp(server).unwrap_err().kind();
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{server}");
        }
    }
    let udp = client.netns.udp("10.96.1.1:80").ask().unwrap_err();
    assert_eq!(udp.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let node = Node::start();
    let a = node.server("a");
    node.service(json!({}));
    node.endpoints(&[&a]);
    node.wait_for("10.96.1.1:80");
    assert_eq!(a.netns.ask_tcp("10.96.1.1:80").unwrap().0, "a");
    assert_eq!(a.netns.udp("10.96.1.1:80").ask().unwrap().0, "a");
    node.wait_for("[fd00:10:96::11]:80");
    assert_eq!(a.netns.ask_tcp("[fd00:10:96::11]:80").unwrap().0, "a");
}

#[test]
fn a_node_port_keeps_the_source() {
    let node = Node::start();
    let a = node.server("a");
    node.service(json!({"type": "NodePort"}));
    node.endpoints(&[&a]);
    node.wait_for(&format!("{NODE_V4}:30080"));
    let server = format!("{UPLINK}:30080");
    let seen = node.outside.ask_tcp(&server).unwrap();
    assert_eq!(seen, ("a".into(), OUTSIDE.parse().unwrap()));
    assert_eq!(node.outside.udp(&server).ask().unwrap(), seen);
}

#[test]
fn an_external_address_is_served() {
    let node = Node::start();
    let a = node.server("a");
    node.service(json!({"externalIPs": ["203.0.113.5"]}));
    node.endpoints(&[&a]);
    node.wait_for("203.0.113.5:80");
    node.outside
        .ip(&format!("route add 203.0.113.5 via {UPLINK}"));
    assert_eq!(node.outside.ask_tcp("203.0.113.5:80").unwrap().0, "a");
}

#[test]
fn a_policy_of_local_wants_an_endpoint_here() {
    let node = Node::start();
    let (a, client) = (node.server("a"), node.pod("client"));
    node.service(json!({"type": "NodePort", "externalTrafficPolicy": "Local"}));
    node.endpoints_on("elsewhere", &[&a]);
    let server = format!("{UPLINK}:30080");
    eventually("pods use every endpoint", || {
        client.netns.ask_tcp(&server).ok()
    });
    let outside = node.outside.ask_tcp_within(&server, SILENCE);
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::TimedOut);
    node.endpoints_on("here", &[&a]);
    let seen = || node.outside.ask_tcp_within(&server, SILENCE).ok();
    let seen = eventually("an endpoint here", seen);
    assert_eq!(seen, ("a".into(), OUTSIDE.parse().unwrap()));
}

#[test]
fn an_internal_policy_of_local_drops_without_an_endpoint_here() {
    let node = Node::start();
    let (a, client) = (node.server("a"), node.pod("client"));
    node.service(json!({"type": "NodePort", "internalTrafficPolicy": "Local"}));
    node.endpoints_on("elsewhere", &[&a]);
    node.wait_for(&format!("{NODE_V4}:30080"));
    let dropped = client.netns.ask_tcp_within("10.96.1.1:80", SILENCE);
    assert_eq!(dropped.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_client_with_affinity_stays_with_its_endpoint() {
    let node = Node::start();
    let servers = ["a", "b", "c", "d"].map(|name| node.server(name));
    let (one, two) = (node.pod("one"), node.pod("two"));
    node.service(json!({"type": "NodePort", "sessionAffinity": "ClientIP"}));
    node.endpoints(&[&servers[0], &servers[1], &servers[2], &servers[3]]);
    for server in [
        "10.96.1.1:80",
        "[fd00:10:96::11]:80",
        &format!("{NODE_V4}:30080"),
    ] {
        node.wait_for(server);
        for client in [&one, &two] {
            let answers = (0..20).map(|_| client.netns.ask_tcp(server).unwrap().0);
            assert_eq!(answers.collect::<BTreeSet<_>>().len(), 1, "{server}");
        }
    }
}

#[test]
fn affinity_ends_with_its_time() {
    let node = Node::start();
    let servers = ["a", "b"].map(|name| node.server(name));
    let client = node.pod("client");
    let config = json!({"clientIP": {"timeoutSeconds": 1}});
    node.service(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
    node.endpoints(&[&servers[0], &servers[1]]);
    node.wait_for("10.96.1.1:80");
    let first = client.netns.ask_tcp("10.96.1.1:80").unwrap().0;
    // Each question renews the affinity, so they are asked ever more than a second apart.
    let other = || {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let name = client.netns.ask_tcp("10.96.1.1:80").unwrap().0;
        (name != first).then_some(())
    };
    eventually("another endpoint", other);
}

#[test]
fn the_answers_of_an_endpoint_elsewhere_come_back_here() {
    let node = Node::start();
    node.outside.ip("address add 10.244.2.7/32 dev lo");
    node.here
        .ip(&format!("route add 10.244.2.0/24 via {OUTSIDE}"));
    node.outside.serve_tcp("far", 80);
    node.service(json!({"type": "NodePort"}));
    node.api.put(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-far", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.2.7"], "nodeName": "elsewhere"}],
        "ports": [{"name": "tcp", "port": 80, "protocol": "TCP"}],
    }));
    let server = format!("{UPLINK}:30080");
    let seen = eventually("far", || node.outside.ask_tcp(&server).ok());
    assert_eq!(seen, ("far".into(), UPLINK.parse().unwrap()));
    let client = node.pod("client");
    node.outside
        .ip(&format!("route add 10.244.1.0/24 via {UPLINK}"));
    let seen = client.netns.ask_tcp("10.96.1.1:80").unwrap();
    assert_eq!(seen, ("far".into(), client.v4()));
}

#[test]
fn a_host_port_leads_to_its_pod_as_long_as_it_is_attached() {
    let mut node = Node::start();
    let port = peapod_api::attach::HostPort {
        host_ip: None,
        host_port: 8080,
        container_port: 80,
        protocol: peapod_api::attach::Protocol::Tcp,
    };
    let pod = node.pod_with_ports("a", vec![port]);
    pod.netns.serve_tcp("a", 80);
    let server = format!("{UPLINK}:8080");
    let seen = ("a".into(), OUTSIDE.parse().unwrap());
    assert_eq!(node.outside.ask_tcp(&server).unwrap(), seen);
    node.restart();
    assert_eq!(node.outside.ask_tcp(&server).unwrap(), seen);
    assert_eq!(node.here.ask_tcp(&server).unwrap().0, "a");
    node.detach(&pod);
    let refused = node.outside.ask_tcp(&server).unwrap_err().kind();
    assert_eq!(refused, ErrorKind::ConnectionRefused);
}

#[test]
fn a_node_port_answers_on_loopback() {
    let node = Node::start();
    let a = node.server("a");
    node.service(json!({"type": "NodePort"}));
    node.endpoints(&[&a]);
    node.wait_for("127.0.0.1:30080");
    assert_eq!(node.here.ask_tcp("127.0.0.1:30080").unwrap().0, "a");
}

/// A pod that has the right to may send what nobody should: packets for a loopback address.
#[test]
fn a_pod_does_not_reach_the_nodes_loopback() {
    let node = Node::start();
    let a = node.server("a");
    let _listener = TcpListener::bind("127.0.0.2:7777").unwrap();
    a.netns.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    });
    a.netns.ip("route del table local local 127.0.0.0/8 dev lo");
    a.netns.ip("route add 127.0.0.2/32 via 169.254.1.1");
    let reach = || a.netns.ask_tcp_within("127.0.0.2:7777", SILENCE).map(drop);
    let error = reach().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "dropped, not refused");
    // Without the rule it is only for the kernel to say, and it lets it pass.
    nft("flush chain ip peapod input");
    assert_ne!(reach().unwrap_err().kind(), ErrorKind::TimedOut);
}
