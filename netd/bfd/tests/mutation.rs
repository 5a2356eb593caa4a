//! The fuzz bodies over packets of a session that comes up, each input mutated from a seed: 20,000
//! inputs for each of the `ROUNDS` (3 by default), the same again from the `SEED` that is printed.

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::num::NonZeroU32;
use std::time::Duration;

use peapod_bfd::{Config, Packet, Received, Session, TTL};

#[test]
fn packets() {
    let corpus = conversation();
    run("packet", &corpus, bodies::packet);
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
    run("session", &[stream.collect()], bodies::session);
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

const INPUTS: u64 = 20_000;

fn run(target: &str, corpus: &[Vec<u8>], body: fn(&[u8])) {
    let setting = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse().expect("a number"))
    };
    let rounds: u64 = setting("ROUNDS").unwrap_or(3);
    let seed = setting("SEED").unwrap_or(0x5eed);
    println!("{target}: ROUNDS={rounds} SEED={seed}");
    corpus.iter().for_each(|input| body(input));
    let mut chance = Chance(seed | 1);
    for _ in 0..rounds * INPUTS {
        let mut input = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(6) {
            mutate(&mut input, &mut chance);
        }
        let outcome = std::panic::catch_unwind(|| body(&input));
        assert!(outcome.is_ok(), "{target} fails with {input:02x?}");
    }
}

fn mutate(input: &mut Vec<u8>, chance: &mut Chance) {
    if input.is_empty() {
        return input.push(chance.next() as u8);
    }
    let at = chance.below(input.len());
    match chance.below(5) {
        0 => input[at] ^= 1 << chance.below(8),
        1 => input[at] = chance.next() as u8,
        2 => input[at] = [0, 1, 24, 0x20, 0xc0, 255][chance.below(6)],
        3 => input.truncate(at),
        _ => input.insert(at, chance.next() as u8),
    }
}

/// xorshift64*: the same numbers from the same seed everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}
