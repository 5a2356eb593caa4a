//! Traces of made-up facts, as people read them.

use std::net::{IpAddr, SocketAddr};

use peapod_api::attach::Protocol;
use peapod_netd::probe::connection::Tracked;
use peapod_netd::probe::route::{Chosen, Fate, NextHop};
use peapod_netd::probe::send::{Met, Step, Walk};

use super::super::facts::{Decision, Facts, Far};
use super::super::question::{Kind, PodEnd};
use super::super::words::text;
use super::trace;
use crate::net::peers::Session;
use peapod_api::net::BgpSession;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hop(gateway: Option<&str>, link: &str) -> NextHop {
    NextHop {
        gateway: gateway.map(ip),
        link: link.into(),
        down: false,
    }
}

fn route(prefix: &str, protocol: &str, hops: &[NextHop]) -> Chosen {
    Chosen {
        fate: Fate::Forwarded,
        next_hop: hops.first().cloned(),
        source: None,
        prefix: prefix.parse().ok(),
        protocol: protocol.into(),
        alternatives: hops.to_vec(),
    }
}

fn pod(key: &str, node: &str, address: &str) -> PodEnd {
    PodEnd {
        key: key.into(),
        uid: key.into(),
        node: node.into(),
        ips: vec![ip(address)],
        ..Default::default()
    }
}

fn walk(met: &[Met]) -> Walk {
    let steps = met.iter().enumerate().map(|(nth, met)| Step {
        limit: nth as u8 + 1,
        met: *met,
        micros: 100,
    });
    Walk {
        steps: steps.collect(),
        source: Some("10.244.0.5:40000".parse().unwrap()),
    }
}

/// A pod of n1 sends to a service whose endpoint is a pod of n1.
fn one_node() -> Facts {
    let endpoint: SocketAddr = "10.244.0.6:8080".parse().unwrap();
    Facts {
        from: pod("default/web", "n1", "10.244.0.5"),
        to: "service default/api".into(),
        address: ip("10.96.0.7"),
        kind: Kind::Port(Protocol::Tcp, 80),
        source: ip("10.244.0.5"),
        pod_route: Some(route("", "static", &[hop(Some("169.254.1.1"), "eth0")])),
        veth: Some("pea01".into()),
        decision: Some(Decision {
            service: "default/api".into(),
            action: "balance".into(),
            endpoints: vec![endpoint, "10.244.0.9:8080".parse().unwrap()],
            chosen: Some(endpoint),
        }),
        destination: endpoint.ip(),
        node_route: Ok(route("10.244.0.6/32", "peapod", &[hop(None, "pea02")])),
        far: None,
        target: Some(pod("default/api-1", "n1", "10.244.0.6")),
        leaves: Vec::new(),
        nodes: [("n1".to_owned(), vec![ip("10.0.0.1")])].into(),
        first: Some(walk(&[Met::Answered])),
        walk: Some(walk(&[Met::Hop(ip("10.0.0.1")), Met::Answered])),
        connection: Some(Tracked {
            source: "10.244.0.5:40000".parse().unwrap(),
            destination: "10.96.0.7:80".parse().unwrap(),
            answered_by: endpoint,
        }),
        policies: Vec::new(),
    }
}

#[test]
fn one_node_by_a_service() {
    assert_eq!(
        text(&trace(&one_node())),
        "from   pod default/web on n1 (10.244.0.5)
to     service default/api (10.96.0.7, TCP 80)

 1  pod      default/web    default (static) via 169.254.1.1 dev eth0
 2  service  default/api    10.96.0.7:80: the probe was led to 10.244.0.6:8080, one of 2
 3  node     n1             in by pea01
                            10.244.0.6/32 (peapod) dev pea02
                            probe answered from 10.0.0.1 in 0.10 ms
 4  pod      default/api-1  10.244.0.6 by its eth0
                            answers
                            probe answered in 0.10 ms

conntrack  10.244.0.5:40000 -> 10.96.0.7:80, answered by 10.244.0.6:8080
policy     none programmed, and none selects these pods
verdict    reached: the destination answered
"
    );
}

fn fabric() -> Facts {
    let session = |port: &str, name: &str| Session {
        node: "n1".into(),
        asn: None,
        told: BgpSession {
            interface: Some(port.into()),
            remote_hostname: Some(name.into()),
            remote_as: Some(65100),
            state: "Established".into(),
            ..Default::default()
        },
    };
    let ways = [hop(Some("fe80::1"), "eth1"), hop(Some("fe80::2"), "eth2")];
    Facts {
        to: "pod default/db".into(),
        address: ip("10.244.1.6"),
        kind: Kind::Icmp,
        decision: None,
        destination: ip("10.244.1.6"),
        node_route: Ok(route("10.244.1.0/24", "bgp", &ways)),
        far: Some(Far {
            name: "n2".into(),
            route: Ok(route("10.244.1.6/32", "peapod", &[hop(None, "pea03")])),
        }),
        target: Some(pod("default/db", "n2", "10.244.1.6")),
        leaves: vec![session("eth1", "leaf1"), session("eth2", "leaf2")],
        nodes: [
            ("n1".to_owned(), vec![ip("10.0.0.1")]),
            ("n2".to_owned(), vec![ip("10.0.0.2")]),
        ]
        .into(),
        connection: None,
        policies: vec!["default/deny".into()],
        ..one_node()
    }
}

#[test]
fn two_nodes_over_a_leaf() {
    let hops = [
        Met::Hop(ip("10.0.0.1")),
        Met::Hop(ip("10.9.0.1")),
        Met::Hop(ip("10.0.0.2")),
        Met::Answered,
    ];
    let facts = Facts {
        walk: Some(walk(&hops)),
        ..fabric()
    };
    let trace = trace(&facts);
    let told: Vec<String> = trace
        .hops
        .iter()
        .map(|hop| {
            format!(
                "{} {} {:?}",
                hop.kind,
                hop.name,
                hop.answered_from.map(|ip| ip.to_string())
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "pod default/web None",
            "node n1 Some(\"10.0.0.1\")",
            "leaf leaf1 Some(\"10.9.0.1\")",
            "node n2 Some(\"10.0.0.2\")",
            "pod default/db None",
        ]
    );
    assert!(
        trace.hops[1]
            .detail
            .contains(&"other flows via fe80::2 dev eth2 (leaf2)".to_owned())
    );
    assert!(trace.policy.contains("default/deny"));
    assert_eq!(trace.reached, Some(true));
}

#[test]
fn spines_show_by_their_answers() {
    let hops = [
        Met::Hop(ip("10.0.0.1")),
        Met::Hop(ip("10.9.0.1")),
        Met::Hop(ip("10.9.0.9")),
        Met::Hop(ip("10.9.0.2")),
        Met::Hop(ip("10.0.0.2")),
        Met::Answered,
    ];
    let facts = Facts {
        walk: Some(walk(&hops)),
        ..fabric()
    };
    let trace = trace(&facts);
    let kinds: Vec<&str> = trace.hops.iter().map(|hop| hop.kind).collect();
    assert_eq!(
        kinds,
        ["pod", "node", "leaf", "router", "router", "node", "pod"]
    );
    assert_eq!(trace.hops[2].answered_from, Some(ip("10.9.0.1")));
    assert_eq!(trace.hops[5].answered_from, Some(ip("10.0.0.2")));
}

#[test]
fn routers_without_addresses_are_counted() {
    let nobody = Met::Hop(ip("192.0.0.8"));
    let hops = [
        Met::Hop(ip("10.0.0.1")),
        nobody,
        nobody,
        nobody,
        Met::Hop(ip("10.0.0.2")),
        Met::Answered,
    ];
    let facts = Facts {
        walk: Some(walk(&hops)),
        ..fabric()
    };
    let trace = trace(&facts);
    let kinds: Vec<&str> = trace.hops.iter().map(|hop| hop.kind).collect();
    assert_eq!(
        kinds,
        ["pod", "node", "leaf", "router", "router", "node", "pod"]
    );
}

#[test]
fn what_stops_a_packet_is_named() {
    let mut facts = one_node();
    facts.decision = Some(Decision {
        service: "default/api".into(),
        action: "refuse".into(),
        endpoints: Vec::new(),
        chosen: None,
    });
    facts.walk = None;
    facts.first = Some(walk(&[Met::Refused]));
    let refused = trace(&facts);
    assert_eq!(refused.hops.len(), 3);
    assert_eq!(
        refused.verdict,
        "refused: n1 refuses it: the service has no endpoint"
    );
    let mut facts = fabric();
    facts.node_route = Ok(Chosen {
        fate: Fate::Blackhole,
        ..route("10.244.1.0/24", "peapod", &[])
    });
    facts.first = Some(walk(&[Met::Silence]));
    facts.walk = None;
    assert_eq!(
        trace(&facts).verdict,
        "not reached: n1 drops it: the route is a blackhole"
    );
    facts.first = None;
    assert_eq!(trace(&facts).reached, None);
    let mut facts = fabric();
    facts.node_route = Ok(route("", "static", &[hop(Some("10.0.0.254"), "eth0")]));
    facts.first = Some(walk(&[Met::Silence]));
    facts.walk = None;
    let verdict = trace(&facts).verdict;
    assert!(
        verdict.contains("n1 has no route to the pods of n2"),
        "{verdict}"
    );
}
