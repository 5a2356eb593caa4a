//! What is drawn of a topology, and what it is made from.

use super::*;
use crate::net::peers::Session;
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
