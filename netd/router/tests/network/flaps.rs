//! Links and leaves that fail, with the RIB and the kernel compared after each time.

use std::time::{Duration, Instant};

use peapod_bgp::Chance;
use peapod_bgp::fsm::State;
use peapod_lab::rack::Rack;
use peapod_lab::{Lab, eventually};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

/// One link is cut and restored, five times a round, at either end; after each cut and each
/// repair the kernels have what the RIBs say.
#[test]
fn a_link_that_flaps_leaves_rib_and_fib_equal() {
    let (rounds, seed) = (setting("ROUNDS", 3), setting("SEED", 1));
    println!("ROUNDS={rounds} SEED={seed}");
    let rack = Rack::new();
    let mut chance = Chance::new(seed);
    for flap in 0..rounds * 5 {
        let (near, far) = match chance.number().is_multiple_of(2) {
            true => ("a", "leaf1"),
            false => ("leaf1", "a"),
        };
        println!("flap {flap}: the end at {near}");
        rack.lab.set_link(near, far, false);
        rack.lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
        ["a", "leaf1"]
            .into_iter()
            .for_each(|name| rack.agrees(name));
        rack.lab.set_link(near, far, true);
        rack.as_at_first();
    }
    rack.random_flaps(rounds * 5, seed);
}

/// A leaf is lost under traffic, seen and unseen: all flows go on over the other one. What it cost
/// is printed; `cargo bench -p peapod-router` has the targets.
#[test]
fn flows_go_on_over_the_other_leaf() {
    let rack = Rack::new();
    println!("carrier lost: {:?}", rack.carrier_lost());
    println!("link back: both legs after {:?}", rack.link_back());
    rack.as_at_first();
    rack.bfd_up();
    println!("silent, BFD 3 x 100 ms: {:?}", rack.silent_loss());
    rack.speak_again();
    rack.as_at_first();
}

/// A link whose end is taken down loses its IPv6 address, which comes back a little after its carrier,
/// and later still where the kernel looks for others that have it: the session does not wait for the
/// next time that it would be tried (after 10 s).
#[test]
fn an_unnumbered_session_is_back_as_soon_as_its_link_has_an_address() {
    let mut lab = Lab::new();
    lab.link(("a", ""), ("b", ""));
    for (name, asn, other) in [("a", 65001, "to-b"), ("b", 65002, "to-a")] {
        for which in ["all", other] {
            lab.within(
                name,
                &format!("sysctl -qw net.ipv6.conf.{which}.keep_addr_on_down=0"),
            );
        }
        lab.router(
            name,
            &format!(
                "asn: {asn}\nrouterId: 10.9.9.{}\ninstall: true\n\
                 neighbors: [{{interface: {other}, remoteAs: external}}]",
                asn - 65000
            ),
        );
    }
    lab.established("a", "to-b");
    for detection in [0, 1] {
        lab.within(
            "a",
            &format!("sysctl -qw net.ipv6.conf.to-b.accept_dad={detection}"),
        );
        let rounds = if detection == 0 { 20 } else { 3 };
        let mut took = Vec::new();
        for _ in 0..rounds {
            let before = lab.peer("a", "to-b").expect("a neighbour").established;
            lab.set_link("a", "b", false);
            let down = || {
                lab.peer("b", "to-a")
                    .is_some_and(|peer| peer.state < State::Established)
            };
            eventually("the session is down", down);
            let start = Instant::now();
            lab.set_link("a", "b", true);
            eventually("the session is up again", || {
                let peer = lab.peer("a", "to-b").expect("a neighbour");
                peer.state == State::Established && peer.established > before
            });
            took.push(start.elapsed());
        }
        let longest = took.iter().max().copied().unwrap_or_default();
        println!("detection {detection}: back after {longest:.0?} at most");
        assert!(longest < Duration::from_secs(5), "{took:?}");
    }
}
