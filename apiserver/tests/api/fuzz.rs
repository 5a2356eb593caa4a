//! The fuzz bodies over the corpus, each input mutated from a seed: 400 inputs for each of the
//! `ROUNDS` (1 by default), the same again from the `SEED` that is printed.

use std::path::Path;

use peapod_schema::protobuf::Shown;
use peapod_schema::{cbor, protobuf};

use crate::bodies;

/// Inputs in a round.
const INPUTS: u64 = 400;

#[test]
fn json_bodies() {
    run("json", &corpus("object"), bodies::json);
}

#[test]
fn yaml_bodies() {
    let inputs = [corpus("text"), corpus("object")].concat();
    run("yaml", &inputs, bodies::yaml);
}

#[test]
fn cbor_bodies() {
    let inputs: Vec<_> = corpus("object")
        .iter()
        .map(|json| cbor::encode(json).expect("JSON"))
        .collect();
    run("cbor", &inputs, bodies::cbor);
}

#[test]
fn protobuf_bodies() {
    let mut inputs = Vec::new();
    for json in corpus("object") {
        for kind in 0..bodies::KINDS.len() as u8 {
            let body = protobuf::encode(&json, bodies::schema(kind), Shown::Object);
            inputs.extend(body.ok().map(|body| [vec![kind], body].concat()));
        }
    }
    assert!(inputs.len() >= 4, "the corpus is not of the kinds");
    run("protobuf", &inputs, bodies::protobuf);
}

#[test]
fn patches() {
    let mut inputs = Vec::new();
    for object in corpus("object") {
        for change in corpus("text").iter().chain(&corpus("object")) {
            inputs.push([b"\x01", object.as_slice(), b"\0", change].concat());
        }
    }
    run("patch", &inputs, bodies::patch);
}

#[test]
fn selectors_and_expressions() {
    run("selector", &corpus("text"), bodies::selector);
    run("cel", &corpus("text"), bodies::cel);
}

fn run(target: &str, corpus: &[Vec<u8>], body: fn(&[u8])) {
    let rounds = setting("ROUNDS").unwrap_or(1);
    let seed = setting("SEED").unwrap_or(0x5eed);
    println!("{target}: ROUNDS={rounds} SEED={seed}");
    corpus.iter().for_each(|input| body(input));
    let mut chance = Chance(seed | 1);
    for _ in 0..rounds * INPUTS {
        let input = mutated(corpus, &mut chance);
        let outcome = std::panic::catch_unwind(|| body(&input));
        let shown = String::from_utf8_lossy(&input);
        assert!(outcome.is_ok(), "{target} fails with {input:?}: {shown}");
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// The inputs in a folder of `fuzz/corpus`, in order of their names.
fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(folder);
    let entries = std::fs::read_dir(folder).expect("the corpus is in the tree");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("a file");
    paths.iter().map(read).collect()
}

/// One input of the corpus, or two spliced, with a few changes.
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
    input
}

fn mutate(input: &mut Vec<u8>, chance: &mut Chance) {
    if input.is_empty() {
        return input.push(chance.next() as u8);
    }
    let at = chance.below(input.len());
    match chance.below(6) {
        0 => input[at] ^= 1 << chance.below(8),
        1 => input[at] = b"\0\x01\x7f\x80\xff\"{}[]:,-0"[chance.below(14)],
        2 => input[at] = input[at].wrapping_add(1),
        3 => input.insert(at, chance.next() as u8),
        4 => drop(input.drain(at..(at + 1 + chance.below(8)).min(input.len()))),
        _ => {
            let copy = input[at..(at + 1 + chance.below(32)).min(input.len())].to_vec();
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
