//! Inputs for fuzz bodies without a fuzzer: those of a corpus, mutated from a seed. What
//! `cargo fuzz` finds by looking into the code, `cargo test` looks for by chance, the same in
//! every run, and more of it, or other, by `ROUNDS` and `SEED`.
//!
//! It must not know what the inputs mean, beyond the octets that a format is made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The seed, unless `SEED` is set.
const SEED: u64 = 0x5eed;
/// Most changes of one input.
const CHANGES_MAX: usize = 5;
/// The longest piece that is taken out, copied, or taken over from another input.
const PIECE_MAX: usize = 32;

/// How inputs of a format are made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Inputs in a round.
    pub inputs: u64,
    /// Rounds, unless `ROUNDS` is set.
    pub rounds: u64,
    /// Octets that mean something in the format: they are put where others stood.
    pub octets: &'static [u8],
    /// What is done to an input in the end, as with a length that must fit.
    pub finish: fn(&mut [u8], &mut Chance),
}

/// Random numbers, the same from the same seed everywhere (xorshift64*).
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// The inputs in a folder of a crate, in the order of their names.
///
/// # Panics
/// If there are fewer than `least`: then they are not where they should be.
pub fn corpus(folder: impl AsRef<Path>, least: usize) -> Vec<Vec<u8>> {
    let folder = folder.as_ref();
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|fault| panic!("{}: {fault}", folder.display()));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(
        paths.len() >= least,
        "{} holds {} inputs",
        folder.display(),
        paths.len()
    );
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
    };
    paths.iter().map(read).collect()
}

/// Gives a body the inputs of a corpus, and then mutated ones.
///
/// # Panics
/// When the body does, with the input.
pub fn run(target: &str, corpus: &[Vec<u8>], plan: &Plan, body: fn(&[u8])) {
    let rounds = setting("ROUNDS").unwrap_or(plan.rounds);
    let seed = setting("SEED").unwrap_or(SEED);
    println!("{target}: ROUNDS={rounds} SEED={seed}");
    corpus.iter().for_each(|input| body(input));
    let mut chance = Chance::new(seed);
    for _ in 0..rounds * plan.inputs {
        let input = plan.mutated(corpus, &mut chance);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&input)));
        assert!(
            outcome.is_ok(),
            "{target} fails with {}",
            input.escape_ascii()
        );
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name}={text} is no number"),
    }
}

// === impl Plan ===

impl Plan {
    /// One input of the corpus, or two spliced, with a few changes.
    fn mutated(&self, corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
        let mut input = corpus[chance.below(corpus.len())].clone();
        if chance.below(8) == 0 {
            let other = &corpus[chance.below(corpus.len())];
            input.truncate(chance.below(input.len() + 1));
            input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
        for _ in 0..=chance.below(CHANGES_MAX) {
            self.mutate(&mut input, corpus, chance);
        }
        (self.finish)(&mut input, chance);
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
        if input.is_empty() {
            return input.push(chance.octet());
        }
        let at = chance.below(input.len());
        match chance.below(9) {
            0 => input[at] ^= 1 << chance.below(8),
            1 => input[at] = chance.octet(),
            2 => input[at] = self.octets[chance.below(self.octets.len())],
            3 => input[at] = input[at].wrapping_add(if chance.below(2) == 0 { 1 } else { 255 }),
            4 => input.insert(at, self.octets[chance.below(self.octets.len())]),
            5 => drop(input.drain(chance.piece(at, input.len()))),
            6 => {
                let copy = input[chance.piece(at, input.len())].to_vec();
                input.splice(at..at, copy);
            }
            7 => input.truncate(at),
            // What belongs elsewhere, in a place where it does not.
            _ => {
                let other = &corpus[chance.below(corpus.len())];
                let from = chance.below(other.len());
                let piece = other[chance.piece(from, other.len())].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
}

// === impl Chance ===

impl Chance {
    /// Numbers from a seed.
    pub fn new(seed: u64) -> Self {
        // Of zero nothing but zero would come.
        Self(seed | 1)
    }

    /// A number of 32 bits.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// A number below a bound; 0 below 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.number() as usize % bound.max(1)
    }

    fn octet(&mut self) -> u8 {
        self.number() as u8
    }

    /// A piece that begins at a place of something so long.
    fn piece(&mut self, at: usize, length: usize) -> std::ops::Range<usize> {
        at..(at + 1 + self.below(PIECE_MAX)).min(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        inputs: 1000,
        rounds: 1,
        octets: b"\0\xff",
        finish: |_, _| (),
    };

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let corpus = [b"one".to_vec(), Vec::new(), b"another".to_vec()];
        let inputs = |seed| {
            let mut chance = Chance::new(seed);
            let mut make = || PLAN.mutated(&corpus, &mut chance);
            (0..1000).map(|_| make()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(5));
        let fresh = inputs(3)
            .into_iter()
            .filter(|input| !corpus.contains(input));
        assert!(fresh.count() > 800, "most inputs are new");
    }

    #[test]
    #[should_panic(expected = "odd fails with")]
    fn what_fails_is_told() {
        run("odd", &[b"even".to_vec()], &PLAN, |input| {
            assert!(input.len() % 2 == 0);
        });
    }
}
