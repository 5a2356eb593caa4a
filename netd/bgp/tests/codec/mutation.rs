//! The fuzz bodies over the corpus, each input mutated from a seed: 5,000 inputs for each of the
//! `ROUNDS` (3 by default), the same again from the `SEED` that is printed.

use std::path::Path;

use crate::bodies;

#[test]
fn messages() {
    run("message", bodies::message);
}

#[test]
fn streams() {
    run("stream", bodies::stream);
}

/// Inputs in a round.
const INPUTS: u64 = 5_000;

fn run(target: &str, body: fn(&[u8])) {
    let rounds = setting("ROUNDS").unwrap_or(3);
    let seed = setting("SEED").unwrap_or(0x5eed);
    println!("{target}: ROUNDS={rounds} SEED={seed}");
    let corpus = corpus();
    corpus.iter().for_each(|input| body(input));
    let mut chance = Chance(seed | 1);
    for _ in 0..rounds * INPUTS {
        let input = mutated(&corpus, &mut chance);
        let outcome = std::panic::catch_unwind(|| body(&input));
        assert!(outcome.is_ok(), "{target} fails with {}", hex(&input));
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The inputs in `fuzz/corpus`, in order of their names.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message");
    let entries = std::fs::read_dir(folder).expect("the corpus is in the tree");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 30, "the corpus is nearly empty");
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file"))
        .collect()
}

/// One input of the corpus, or two spliced, with a few changes; half of the time with a header
/// that fits, so that what is behind it is reached.
fn mutated(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = corpus[chance.below(corpus.len())].clone();
    if chance.below(8) == 0 {
        let other = &corpus[chance.below(corpus.len())];
        input.truncate(chance.below(input.len() + 1));
        input.extend_from_slice(&other[chance.below(other.len())..]);
    }
    for _ in 0..=chance.below(4) {
        mutate(&mut input, chance);
    }
    if chance.below(2) == 0 && input.len() >= 20 {
        let len = u16::try_from(input.len() - 1).unwrap_or(u16::MAX);
        input[1..17].fill(0xff);
        input[17..19].copy_from_slice(&len.to_be_bytes());
    }
    input
}

fn mutate(input: &mut Vec<u8>, chance: &mut Chance) {
    if input.is_empty() {
        return input.push(chance.next() as u8);
    }
    let at = chance.below(input.len());
    match chance.below(7) {
        0 => input[at] ^= 1 << chance.below(8),
        1 => input[at] = chance.next() as u8,
        2 => input[at] = [0, 1, 4, 32, 33, 127, 128, 255][chance.below(8)],
        3 => input[at] = input[at].wrapping_add(if chance.below(2) == 0 { 1 } else { 255 }),
        4 => input.insert(at, chance.next() as u8),
        5 => {
            input.drain(at..(at + 1 + chance.below(8)).min(input.len()));
        }
        _ => {
            let end = (at + 1 + chance.below(32)).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
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
