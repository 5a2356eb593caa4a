//! The fuzz bodies over files and requests that mean something, each input mutated from a seed:
//! 2,000 inputs for each of the `ROUNDS` (3 by default), the same again from the `SEED` that is
//! printed.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use std::path::Path;

use peapod_mutation::{Plan, run};

#[test]
fn files() {
    let corpus = corpus("file");
    for input in &corpus {
        let text = std::str::from_utf8(input).unwrap();
        let read = serde_saphyr::from_str::<peapod_router::RouterConfig>(text);
        assert!(read.is_ok(), "{text}: {read:?}");
    }
    run("file", &corpus, &PLAN, bodies::file);
}

#[test]
fn requests() {
    run("request", &corpus("request"), &PLAN, bodies::request);
}

const PLAN: Plan = Plan {
    inputs: 2_000,
    rounds: 3,
    octets: b"{}[]:,-\"' \n0a#&*!|>%@",
    finish: |_, _| (),
};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    peapod_mutation::corpus(folder.join(target), 3)
}
