//! Our router with FRR, BIRD and GoBGP, and with itself, in network namespaces.

use std::time::{Duration, Instant};

use peapod_lab::{Lab, eventually};

const OURS: &str = "
asn: 65001
routerId: 10.0.0.1
install: true
announce: [10.244.1.0/24, \"fd00:10:244:1::/64\"]
";

#[test]
fn two_of_ours_over_ipv4_and_ipv6() {
    let mut lab = Lab::new();
    lab.link(
        ("a", "10.0.0.1/24 fd00::1/64"),
        ("b", "10.0.0.2/24 fd00::2/64"),
    );
    let neighbors = "neighbors: [{address: fd00::2, remoteAs: 65002}]";
    lab.router("a", &format!("{OURS}{neighbors}"));
    lab.router(
        "b",
        "asn: 65002\nrouterId: 10.0.0.2\ninstall: true\nannounce: [10.244.2.0/24, \"fd00:10:244:2::/64\"]\n\
         neighbors: [{address: fd00::1, remoteAs: external}]",
    );
    lab.established("a", "fd00::2");
    lab.kernel_route("a", "10.244.2.0/24", &["10.0.0.2"]);
    lab.kernel_route("a", "fd00:10:244:2::/64", &["fd00::2"]);
    lab.kernel_route("b", "10.244.1.0/24", &["10.0.0.1"]);
}

#[test]
fn frr_numbered_and_a_cut_link() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("leaf1", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("leaf2", "10.0.1.2/24"));
    for (leaf, asn, address) in [("leaf1", 65002, "10.0.0"), ("leaf2", 65003, "10.0.1")] {
        lab.frr(
            leaf,
            &format!(
                "hostname {leaf}\nrouter bgp {asn}\n bgp router-id {address}.2\n \
                 no bgp ebgp-requires-policy\n no bgp network import-check\n \
                 neighbor {address}.1 remote-as 65001\n address-family ipv4 unicast\n  \
                 network 10.99.0.0/16\n"
            ),
        );
    }
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors: [{{address: 10.0.0.2, remoteAs: 65002}}, \
             {{address: 10.0.1.2, remoteAs: 65003}}]"
        ),
    );
    lab.established("a", "10.0.0.2");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.0.2", "10.0.1.2"]);
    lab.kernel_route("leaf1", "10.244.1.0/24", &["10.0.0.1"]);
    lab.within("a", "ip link set to-leaf1 down");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
    lab.within("a", "ip link set to-leaf1 up");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.0.2", "10.0.1.2"]);
}

#[test]
fn bird_with_a_password_right_and_wrong() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("c", "10.0.1.2/24"));
    for (name, asn, us, them) in [
        ("b", 65002, "10.0.0.1", "10.0.0.2"),
        ("c", 65003, "10.0.1.1", "10.0.1.2"),
    ] {
        lab.bird(
            name,
            &format!(
                "router id {them};\nprotocol device {{}}\nprotocol static {{ ipv4; route 10.{asn_low}.0.0/16 blackhole; }}\n\
                 protocol bgp peapod {{ local {them} as {asn}; neighbor {us} as 65001; password \"secret\";\n\
                 ipv4 {{ import all; export all; }}; }}\n",
                asn_low = asn - 65000
            ),
        );
    }
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors: [{{address: 10.0.0.2, remoteAs: 65002, password: secret}}, \
             {{address: 10.0.1.2, remoteAs: 65003, password: mistaken}}]"
        ),
    );
    lab.established("a", "10.0.0.2");
    lab.kernel_route("a", "10.2.0.0/16", &["10.0.0.2"]);
    let wrong = lab.peer("a", "10.0.1.2").unwrap();
    assert_eq!(wrong.established, 0, "{wrong:?}");
}

#[test]
fn gobgp_with_a_password_right_and_wrong() {
    let mut lab = Lab::new();
    for (link, name, asn) in [(0, "b", 65002), (1, "c", 65003)] {
        let [us, them] = [1, 2].map(|end| format!("10.0.{link}.{end}"));
        lab.link(("a", &format!("{us}/24")), (name, &format!("{them}/24")));
        lab.gobgp(
            name,
            &format!(
                "[global.config]\nas = {asn}\nrouter-id = \"{them}\"\n[[neighbors]]\n\
                 [neighbors.config]\nneighbor-address = \"{us}\"\npeer-as = 65001\n\
                 auth-password = \"secret\"\n[neighbors.timers.config]\nconnect-retry = 1\n\
                 idle-hold-time-after-reset = 1\n"
            ),
        );
    }
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors: [{{address: 10.0.0.2, remoteAs: 65002, password: secret}}, \
             {{address: 10.0.1.2, remoteAs: 65003, password: mistaken}}]"
        ),
    );
    lab.established("a", "10.0.0.2");
    eventually("GoBGP has our prefix", || {
        let rib = lab.try_within("b", "gobgp global rib");
        rib.is_ok_and(|rib| rib.contains("10.244.1.0/24"))
    });
    let wrong = lab.peer("a", "10.0.1.2").unwrap();
    assert_eq!(wrong.established, 0, "{wrong:?}");
}

#[test]
fn gobgp_comes_from_a_range() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"));
    lab.router(
        "a",
        &format!("{OURS}ranges: [{{prefix: 10.0.0.0/24, remoteAs: external}}]"),
    );
    lab.gobgp(
        "b",
        "[global.config]\nas = 65002\nrouter-id = \"10.0.0.2\"\n[[neighbors]]\n\
         [neighbors.config]\nneighbor-address = \"10.0.0.1\"\npeer-as = 65001\n\
         [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n",
    );
    lab.established("a", "10.0.0.2");
    eventually("GoBGP has our prefix", || {
        lab.peer("a", "10.0.0.2")
            .is_some_and(|peer| peer.families.iter().any(|family| family.advertised > 0))
    });
}

#[test]
fn a_restart_leaves_routes_in_the_kernel_and_takes_away_what_is_gone() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"));
    let a = format!("{OURS}neighbors: [{{address: 10.0.0.2, remoteAs: 65002}}]");
    let b = |announce: &str| {
        format!(
            "asn: 65002\nrouterId: 10.0.0.2\nannounce: [{announce}]\n\
             neighbors: [{{address: 10.0.0.1, remoteAs: 65001, timers: {{connectRetrySeconds: 1}}}}]"
        )
    };
    lab.router("a", &a);
    lab.router("b", &b("10.1.0.0/16, 10.2.0.0/16"));
    lab.kernel_route("a", "10.2.0.0/16", &["10.0.0.2"]);
    lab.stop("a");
    lab.kernel_route("a", "10.1.0.0/16", &["10.0.0.2"]);
    lab.stop("b");
    lab.router("b", &b("10.1.0.0/16"));
    lab.router("a", &a);
    lab.kernel_route("a", "10.2.0.0/16", &[]);
    lab.kernel_route("a", "10.1.0.0/16", &["10.0.0.2"]);
}

#[test]
fn unnumbered_with_ours_and_with_frr() {
    let mut lab = Lab::new();
    lab.link(("a", ""), ("b", ""));
    lab.link(("a", ""), ("c", ""));
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors: [{{interface: to-b, remoteAs: external}}, \
             {{interface: to-c, remoteAs: external}}]"
        ),
    );
    lab.router(
        "b",
        "asn: 65002\nrouterId: 10.0.0.2\ninstall: true\nannounce: [10.99.0.0/16]\n\
         neighbors: [{interface: to-a, remoteAs: external}]",
    );
    lab.frr(
        "c",
        "hostname c\ninterface to-a\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\n\
         router bgp 65003\n bgp router-id 10.0.0.3\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n neighbor to-a interface remote-as external\n \
         address-family ipv4 unicast\n  network 10.99.0.0/16\n",
    );
    lab.established("a", "to-b");
    lab.established("a", "to-c");
    let hops = [lab.link_local("b", "to-a"), lab.link_local("c", "to-a")];
    let mut hops: Vec<&str> = hops.iter().map(String::as_str).collect();
    hops.sort_unstable();
    lab.kernel_route("a", "10.99.0.0/16", &hops);
    lab.kernel_route("b", "10.244.1.0/24", &[&lab.link_local("a", "to-b")]);
    lab.kernel_route("c", "10.244.1.0/24", &[&lab.link_local("a", "to-c")]);
}

#[test]
fn bfd_finds_a_leaf_that_fell_silent() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("leaf1", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("leaf2", "10.0.1.2/24"));
    lab.frr(
        "leaf1",
        "hostname leaf1\nbfd\n profile fast\n  transmit-interval 100\n  receive-interval 100\n\
         router bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n neighbor 10.0.0.1 remote-as 65001\n \
         neighbor 10.0.0.1 bfd\n neighbor 10.0.0.1 bfd profile fast\n \
         address-family ipv4 unicast\n  network 10.99.0.0/16\n",
    );
    lab.router(
        "leaf2",
        "asn: 65003\nrouterId: 10.0.1.2\nannounce: [10.99.0.0/16]\n\
         neighbors: [{address: 10.0.1.1, remoteAs: 65001, bfd: true}]",
    );
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors:\n- {{address: 10.0.0.2, remoteAs: 65002, bfd: {{intervalMs: 100, multiplier: 3}}}}\n\
             - {{address: 10.0.1.2, remoteAs: 65003, bfd: true}}"
        ),
    );
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.0.2", "10.0.1.2"]);
    lab.bfd_up("a", "10.0.0.2");
    lab.bfd_up("a", "10.0.1.2");
    lab.silence("leaf1");
    let start = Instant::now();
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
    let took = start.elapsed();
    println!("routed around after {took:?}");
    assert!(
        took < Duration::from_secs(3),
        "the hold timer, not BFD: {took:?}"
    );
    let last = lab.peer("a", "10.0.0.2").unwrap().last_error;
    assert_eq!(last.as_deref(), Some("BFD down"));
}

/// Somebody else deletes routes, replaces one, and removes nexthop objects: each comes back, and
/// the audit says what it found.
#[test]
fn routes_that_others_touch_come_back() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("c", "10.0.1.2/24"));
    lab.router(
        "a",
        &format!(
            "{OURS}neighbors: [{{address: 10.0.0.2, remoteAs: 65002}}, \
             {{address: 10.0.1.2, remoteAs: 65003}}]"
        ),
    );
    for (name, asn, us) in [("b", 65002, "10.0.0.1"), ("c", 65003, "10.0.1.1")] {
        lab.router(
            name,
            &format!(
                "asn: {asn}\nrouterId: 10.0.0.2\nannounce: [10.99.0.0/16, 10.98.0.0/16]\n\
                 neighbors: [{{address: {us}, remoteAs: 65001}}]"
            ),
        );
    }
    let both = ["10.0.0.2", "10.0.1.2"];
    let right = |lab: &Lab| {
        lab.kernel_route("a", "10.99.0.0/16", &both);
        lab.kernel_route("a", "10.98.0.0/16", &both);
    };
    right(&lab);
    lab.within("a", "ip route del 10.99.0.0/16 proto bgp");
    right(&lab);
    lab.within(
        "a",
        "ip route replace 10.98.0.0/16 proto bgp metric 20 via 10.0.1.2",
    );
    right(&lab);
    lab.within("a", "ip nexthop flush");
    right(&lab);
    eventually("RIB and FIB agree", || lab.audit("a").clean());
    // Of another daemon's, by its looks: not ours to remove, but seen.
    lab.within("a", "ip route add 10.97.0.0/16 proto bgp via 10.0.1.2");
    let audit = lab.audit("a");
    assert_eq!((audit.wanted, audit.extra), (2, 1), "{audit:?}");
}

#[test]
fn unnumbered_with_a_password_right_and_wrong() {
    let mut lab = Lab::new();
    lab.link(("a", ""), ("b", ""));
    lab.link(("a", ""), ("c", ""));
    // The others wait to be connected to, or connect while we wait: both ways must be signed.
    let ours = |options: &str| {
        format!(
            "{OURS}neighbors: [{{interface: to-b, remoteAs: external, password: secret{options}}}, \
             {{interface: to-c, remoteAs: external, password: mistaken}}]"
        )
    };
    lab.router("a", &ours(", passive: true"));
    for (name, asn) in [("b", 65002), ("c", 65003)] {
        lab.router(
            name,
            &format!(
                "asn: {asn}\nrouterId: 10.0.0.{}\nannounce: [10.{asn_low}.0.0/16]\nneighbors: \
                 [{{interface: to-a, remoteAs: external, password: secret, timers: {{connectRetrySeconds: 1}}}}]",
                asn - 65000,
                asn_low = asn - 65000
            ),
        );
    }
    lab.established("a", "to-b");
    lab.stop("a");
    lab.router("a", &ours(""));
    lab.established("a", "to-b");
    let wrong = lab.peer("a", "to-c").unwrap();
    assert_eq!(wrong.established, 0, "{wrong:?}");
}
