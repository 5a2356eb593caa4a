//! The fuzz bodies over the corpus, each input mutated from a seed: 400 inputs for each of the
//! `ROUNDS` (1 by default), the same again from the `SEED` that is printed.

use std::path::Path;

use peapod_mutation::Plan;
use peapod_schema::protobuf::Shown;
use peapod_schema::{cbor, protobuf};

use crate::bodies;

const PLAN: Plan = Plan {
    inputs: 400,
    rounds: 1,
    octets: b"\0\x01\x7f\x80\xff\"{}[]:,-0",
    finish: |_, _| (),
};

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
    peapod_mutation::run(target, corpus, &PLAN, body);
}

/// The inputs in a folder of `fuzz/corpus`.
fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    peapod_mutation::corpus(all.join(folder), 3)
}
