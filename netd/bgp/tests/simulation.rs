//! Networks of speakers in virtual time.

use peapod_bgp::sim::fabric::{Fabric, Plan, Sizes};
use peapod_bgp::sim::{Net, config};

/// Leaves, each announcing a prefix, under spines; an AS each.
fn fabric(spines: u32, leaves: u32) -> (Net, Vec<usize>) {
    let mut net = Net::new();
    let top: Vec<usize> = (0..spines)
        .map(|n| net.add(&format!("spine{n}"), config(65_000 + n, 100 + n)))
        .collect();
    let mut links = Vec::new();
    for n in 0..leaves {
        let leaf = net.add(&format!("leaf{n}"), config(65_100 + n, 200 + n));
        net.announce(leaf, &format!("10.244.{n}.0/24"));
        links.extend(top.iter().map(|spine| net.link(*spine, leaf)));
    }
    net.run_until(20_000, "the fabric converges", Net::quiet);
    (net, links)
}

fn rounds() -> u64 {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(20)
}

#[test]
fn a_fabric_converges_to_all_equal_paths() {
    let (net, _) = fabric(2, 4);
    for node in &net.nodes {
        let others = if node.name.starts_with("leaf") { 3 } else { 4 };
        assert_eq!(node.fib.len(), others, "{}: {:?}", node.name, node.fib);
        for (prefix, hops) in &node.fib {
            let ways = if node.name.starts_with("leaf") { 2 } else { 1 };
            assert_eq!(hops.len(), ways, "{} {prefix} {hops:?}", node.name);
        }
    }
}

#[test]
fn a_link_that_is_seen_to_fail_is_routed_around_at_once() {
    let (mut net, links) = fabric(2, 4);
    net.set_link(links[0], false);
    let leaf = net
        .nodes
        .iter()
        .position(|node| node.name == "leaf0")
        .unwrap();
    assert!(net.nodes[leaf].fib.values().all(|hops| hops.len() == 1));
    net.set_link(links[0], true);
    let both = |net: &Net| net.nodes[leaf].fib.values().all(|hops| hops.len() == 2);
    let ms = net.run_until(500, "both legs are back", both);
    assert!(ms < 500);
}

#[test]
fn a_link_that_fails_silently_is_found_by_the_hold_timer() {
    let (mut net, links) = fabric(2, 2);
    net.lose_silently(links[0]);
    let leaf = net
        .nodes
        .iter()
        .position(|node| node.name == "leaf0")
        .unwrap();
    assert!(net.nodes[leaf].fib.values().all(|hops| hops.len() == 2));
    net.run(10_000);
    // Graceful restart keeps the routes of a peer that fell silent, marked stale.
    net.run(121_000);
    assert!(net.nodes[leaf].fib.values().all(|hops| hops.len() == 1));
}

/// After each random flap of a link or a prefix, the tables are those of a network that never
/// knew anything else.
#[test]
fn random_flaps_leave_no_trace() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1u64);
    println!("SEED={seed}");
    let mut chance = peapod_bgp::Chance::new(seed);
    let (mut net, links) = fabric(2, 3);
    let mut up = vec![true; links.len()];
    let mut extra = [false; 3];
    for round in 0..rounds() {
        for _ in 0..=chance.number() % 3 {
            let pick = usize::try_from(chance.number() % 9).unwrap();
            if let Some(state) = up.get_mut(pick) {
                *state = !*state;
                net.set_link(links[pick], *state);
            } else {
                let n = pick - 6;
                extra[n] = !extra[n];
                set_extra(&mut net, n, extra[n]);
            }
            net.run(chance.number() % 50);
        }
        net.run_until(20_000, "sessions are back", Net::quiet);
        let fresh = from_scratch(&up, &extra);
        assert_eq!(net.tables(), fresh.tables(), "SEED={seed} round {round}");
        assert_eq!(
            net.tables(),
            net.wanted_tables(),
            "SEED={seed} round {round}"
        );
    }
}

fn set_extra(net: &mut Net, leaf: usize, there: bool) {
    let node = net
        .nodes
        .iter()
        .position(|node| node.name == format!("leaf{leaf}"))
        .unwrap();
    let prefix = format!("192.168.{leaf}.0/24");
    match there {
        true => net.announce(node, &prefix),
        false => net.withdraw(node, &prefix),
    }
}

fn from_scratch(up: &[bool], extra: &[bool]) -> Net {
    let (mut net, links) = fabric(2, 3);
    for (link, up) in links.iter().zip(up) {
        net.set_link(*link, *up);
    }
    extra.iter().enumerate().for_each(|(leaf, there)| {
        if *there {
            set_extra(&mut net, leaf, true);
        }
    });
    net.run_until(20_000, "a fresh network converges", Net::quiet);
    net
}

#[test]
fn a_peer_is_shown_with_the_name_that_it_tells() {
    let mut net = Net::new();
    let named = |asn, id, hostname: Option<&str>| {
        let mut config = config(asn, id);
        config.hostname = hostname.map(str::to_owned);
        config
    };
    let leaf = net.add("leaf", named(65_001, 1, Some("leaf1")));
    let spine = net.add("spine", named(65_002, 2, None));
    net.link(leaf, spine);
    net.announce(leaf, "10.244.1.0/24");
    net.run_until(20_000, "they converge", Net::quiet);
    let shown = |node: usize| net.nodes[node].speaker.peers()[0].hostname.clone();
    assert_eq!(shown(spine).as_deref(), Some("leaf1"));
    assert_eq!(shown(leaf), None, "it tells none");
}

/// A small one of the fabrics that the bench measures: summaries of racks keep the tables small,
/// and the loss of a spine leaves all routes on the others.
#[test]
fn aggregation_keeps_tables_small_and_a_spine_may_go() {
    for (aggregate, leaf, spine, node) in [(false, 44 + 4, 48, 47), (true, 11 + 4, 12, 11 + 3 + 1)]
    {
        let plan = Plan {
            racks: 12,
            nodes: 4,
            spines: 3,
            whole: 3,
            aggregate,
        };
        let mut fabric = Fabric::new(plan);
        assert_eq!(
            fabric.sizes(),
            Sizes { leaf, spine, node },
            "aggregate: {aggregate}"
        );
        assert!(fabric.uses_first_spine());
        let loss = fabric.lose_spine(300);
        assert_eq!(loss.converged_ms, 300);
        let moved = if aggregate { 11 } else { 44 };
        assert_eq!(loss.changes, moved);
        let leaf = fabric
            .net
            .nodes
            .iter()
            .find(|node| node.name == "leaf1")
            .unwrap();
        let elsewhere = leaf.fib.values().filter(|hops| hops.len() == 2);
        assert_eq!(elsewhere.count(), moved);
        assert!(!fabric.uses_first_spine());
    }
}
