//! The fuzz bodies over the corpus, each input mutated from a seed: 5,000 inputs for each of the
//! `ROUNDS` (3 by default), the same again from the `SEED` that is printed.

use std::path::Path;

use peapod_mutation::{Chance, Plan};

use crate::bodies;

const PLAN: Plan = Plan {
    inputs: 5_000,
    rounds: 3,
    octets: &[0, 1, 4, 32, 33, 127, 128, 255],
    finish: fit_header,
};

#[test]
fn messages() {
    run("message", bodies::message);
}

#[test]
fn streams() {
    run("stream", bodies::stream);
}

fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message");
    let corpus = peapod_mutation::corpus(folder, 30);
    peapod_mutation::run(target, &corpus, &PLAN, body);
}

/// Half of the time gives an input a header that fits, so that what is behind it is reached.
fn fit_header(input: &mut [u8], chance: &mut Chance) {
    if chance.below(2) == 0 && input.len() >= 20 {
        let len = u16::try_from(input.len() - 1).unwrap_or(u16::MAX);
        input[1..17].fill(0xff);
        input[17..19].copy_from_slice(&len.to_be_bytes());
    }
}
