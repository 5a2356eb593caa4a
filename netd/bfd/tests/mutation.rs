//! The fuzz bodies over packets of a session that comes up, each input mutated from a seed: 20,000
//! inputs for each of the `ROUNDS` (3 by default), the same again from the `SEED` that is printed.

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::num::NonZeroU32;
use std::time::Duration;

use peapod_bfd::{Config, Packet, Received, Session, TTL};
use peapod_mutation::{Plan, run};

const PLAN: Plan = Plan {
    inputs: 20_000,
    rounds: 3,
    octets: &[0, 1, 24, 0x20, 0xc0, 255],
    finish: |_, _| (),
};

#[test]
fn packets() {
    let corpus = conversation();
    run("packet", &corpus, &PLAN, bodies::packet);
}

#[test]
fn sessions() {
    // One after the other, 5 ms apart, with a TTL that is right.
    let stream = conversation().into_iter().flat_map(|packet| {
        let mut chunk = vec![1, 255];
        chunk.extend(packet);
        chunk.resize(26, 0);
        chunk
    });
    run("session", &[stream.collect()], &PLAN, bodies::session);
}

/// What one of two sessions hears from the other while they come up.
fn conversation() -> Vec<Vec<u8>> {
    let mut ends = [1, 2].map(|n| Session::new(Config::new(NonZeroU32::new(n).unwrap())));
    let (mut heard, mut now) = (Vec::new(), Duration::ZERO);
    for _ in 0..12 {
        for (from, to) in [(0, 1), (1, 0)] {
            now = now.max(ends[from].deadline().unwrap_or(now));
            let Some(packet) = ends[from].tick(now, 0).send else {
                continue;
            };
            if to == 0 {
                heard.push(packet.encode().to_vec());
            }
            ends[to].receive(&Received { packet, ttl: TTL }, now, 0);
        }
    }
    assert!(heard.len() > 5, "{} packets", heard.len());
    assert!(heard.iter().all(|octets| Packet::decode(octets).is_ok()));
    heard
}
