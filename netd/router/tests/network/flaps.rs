//! Links and leaves that fail, with the RIB and the kernel compared after each time.

use peapod_bgp::Chance;
use peapod_lab::rack::Rack;

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
