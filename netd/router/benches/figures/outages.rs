//! What faults cost the flows of a host on two leaves.

use std::time::Duration;

use peapod_lab::process::machine;
use peapod_lab::rack::{Outage, Rack};

/// A neighbour that falls silent again and again within minutes is damped, for longer each time: then
/// it is another's turn.
const SO_OFTEN: u64 = 5;
/// Each fault so often, unless `TIMES` says otherwise; the median is shown, and the worst.
const TIMES: u64 = 20;

/// The outages, as a table.
pub fn print() {
    let (start, busy) = (std::time::Instant::now(), machine());
    let times = count("TIMES", TIMES);
    let (mut carrier, mut back, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let mut noise = Vec::new();
    let mut rack = Rack::new();
    for turn in 1..=times {
        if turn % SO_OFTEN == 0 {
            rack = Rack::new();
        }
        let Outage { longest, before } = rack.carrier_lost();
        carrier.push(longest);
        noise.push(before);
        back.push(rack.link_back());
        rack.as_at_first();
        rack.bfd_up();
        let Outage { longest, before } = rack.silent_loss();
        silent.push(longest);
        noise.push(before);
        rack.speak_again();
        rack.as_at_first();
    }
    println!("longest outage of any of 32 flows, two leaves, BFD 3 x 100 ms ({times} times)");
    show("link down, carrier seen", carrier, "60 ms");
    show("silent loss, BFD", silent, "detection (300 ms) + 50 ms");
    show("link back, both legs in the kernel", back, "500 ms");
    show("no fault (the machine's noise)", noise, "-");
    let used = machine().saturating_sub(busy).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("cores busy meanwhile, this included: {used:.1}");
}

fn show(what: &str, mut took: Vec<Duration>, target: &str) {
    took.sort_unstable();
    let ms = |time: &Duration| time.as_millis();
    let (median, worst) = (took.get(took.len() / 2), took.last());
    println!(
        "  {what:<36} median {:>5} ms, worst {:>5} ms   must reach {target}",
        median.map_or(0, ms),
        worst.map_or(0, ms)
    );
}

/// Random flaps, and what is left of them.
pub fn flaps() {
    let count = count("FLAPS", 1000);
    let rack = Rack::new();
    let start = std::time::Instant::now();
    rack.random_flaps(count, 7);
    println!(
        "{count} random flaps of two links in {:.0} s: RIB = FIB on all four routers, both legs there",
        start.elapsed().as_secs_f64()
    );
}

fn count(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(default)
}
