//! What traffic loses when the agent is restarted, and when a leaf dies.

use std::time::{Duration, Instant};

use peapod_lab::traffic::{Loss, Traffic};

use crate::rack::{BFD_MS, Links, Make, Rack, Shape};

/// The agent is away for so long: longer than BFD would wait for it.
const AWAY: Duration = Duration::from_millis(1200);
/// Traffic goes on for so long after everything is well again.
const AFTER: Duration = Duration::from_millis(500);
/// BFD finds a silence within 900 ms; a busy machine may take as much again to act on it, and
/// more. Without BFD it would be the hold time, 90 s.
const BFD_BOUND: Duration = Duration::from_secs(5);

fn shape(make: Make, links: Links, bfd: bool) -> Shape {
    Shape {
        make,
        links,
        bfd,
        far: true,
    }
}

/// Says what was lost, to the pod and from it.
fn report(what: &str, traffic: [Traffic; 2], from: Instant) -> [Loss; 2] {
    let lost = traffic.map(|traffic| Loss::of(&traffic.stop(), from));
    let [to, back] = &lost;
    println!("{what}: to the pod: {to}; from the pod: {back}");
    lost
}

/// No packet is lost while the agent is restarted.
fn planned_restart(make: Make, links: Links, bfd: bool) {
    let mut rack = Rack::new(shape(make, links, bfd));
    let start = Instant::now();
    let traffic = rack.traffic();
    rack.node.stop();
    std::thread::sleep(AWAY);
    // What was told of the sessions before is not to be taken for news.
    rack.node.api.delete("BgpNode", "/here");
    rack.node.restart();
    rack.complete();
    std::thread::sleep(AFTER);
    let what = format!("{make:?}, {links:?}, BFD {bfd}: planned restart");
    let lost = report(&what, traffic, start).map(|loss| loss.lost);
    assert_eq!(lost, [0, 0]);
}

#[test]
fn frr_does_not_see_a_planned_restart() {
    planned_restart(Make::Frr, Links::Unnumbered, false);
}

#[test]
fn frr_with_bfd_does_not_see_a_planned_restart() {
    planned_restart(Make::Frr, Links::Unnumbered, true);
}

#[test]
fn bird_does_not_see_a_planned_restart() {
    planned_restart(Make::Bird, Links::Numbered, false);
}

#[test]
fn bird_with_bfd_does_not_see_a_planned_restart() {
    planned_restart(Make::Bird, Links::Numbered, true);
}

/// A leaf falls silent under traffic, with its links up: BFD finds out, on the node and behind the
/// leaves, and all flows go on over the other leaf. Then it speaks again.
fn a_leaf_dies(make: Make, links: Links) {
    let rack = Rack::new(shape(make, links, true));
    let traffic = rack.traffic();
    std::thread::sleep(AFTER);
    let start = Instant::now();
    rack.lab.silence("leaf1");
    rack.node_uses(&[2]);
    rack.far_uses(&[2]);
    std::thread::sleep(AFTER);
    let what = format!("{make:?}, {links:?}: a leaf dies, BFD 3 x {BFD_MS} ms");
    let both = report(&what, traffic, start);
    assert!(both.iter().any(|loss| loss.lost > 0), "no flow was over it");
    for loss in both {
        assert!(loss.longest < BFD_BOUND, "the hold timer, not BFD: {loss}");
    }
    rack.lab.within("leaf1", "nft delete table inet silent");
    rack.complete();
}

#[test]
fn flows_go_around_a_dead_leaf_of_frr() {
    a_leaf_dies(Make::Frr, Links::Unnumbered);
}

#[test]
fn flows_go_around_a_dead_leaf_of_bird() {
    a_leaf_dies(Make::Bird, Links::Numbered);
}
