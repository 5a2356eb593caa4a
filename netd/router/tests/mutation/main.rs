//! The fuzz bodies over files and requests that mean something, each input mutated from a seed:
//! 2,000 inputs for each of the `ROUNDS` (3 by default), the same again from the `SEED` that is
//! printed.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use std::path::Path;

#[test]
fn files() {
    let corpus = corpus("file");
    for input in &corpus {
        let text = std::str::from_utf8(input).unwrap();
        let read = serde_saphyr::from_str::<peapod_router::RouterConfig>(text);
        assert!(read.is_ok(), "{text}: {read:?}");
    }
    run("file", &corpus, bodies::file);
}

#[test]
fn requests() {
    run("request", &corpus("request"), bodies::request);
}

const INPUTS: u64 = 2_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let entries = std::fs::read_dir(folder).expect("the corpus is in the tree");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "the corpus is nearly empty");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn run(target: &str, corpus: &[Vec<u8>], body: fn(&[u8])) {
    let setting = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse().expect("a number"))
    };
    let rounds: u64 = setting("ROUNDS").unwrap_or(3);
    let seed = setting("SEED").unwrap_or(0x5eed);
    println!("{target}: ROUNDS={rounds} SEED={seed}");
    corpus.iter().for_each(|input| body(input));
    let mut chance = peapod_bgp::Chance::new(seed);
    let mut below = |bound: usize| (chance.number() % bound.max(1) as u64) as usize;
    for _ in 0..rounds * INPUTS {
        let mut input = corpus[below(corpus.len())].clone();
        for _ in 0..=below(4) {
            let at = below(input.len());
            match below(5) {
                0 => input.insert(at, b"{}[]:,-\"' \n0a#&*!|>%@"[below(21)]),
                1 if !input.is_empty() => drop(input.remove(at)),
                2 if !input.is_empty() => input[at] = 0x20 + below(0x60) as u8,
                3 => input.truncate(at),
                // A piece of another: what belongs elsewhere, in a place where it does not.
                _ => {
                    let other = &corpus[below(corpus.len())];
                    let from = below(other.len());
                    let piece = other[from..(from + 1 + below(40)).min(other.len())].to_vec();
                    input.splice(at..at, piece);
                }
            }
        }
        let outcome = std::panic::catch_unwind(|| body(&input));
        let shown = String::from_utf8_lossy(&input);
        assert!(outcome.is_ok(), "{target} fails with {shown}");
    }
}
