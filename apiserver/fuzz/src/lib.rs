//! What the fuzz targets do with their input, apart from how it is made: `cargo fuzz` makes it
//! here, `cargo test` makes it in `tests/api/fuzz.rs`.
//!
//! Each body panics when a promise of a decoder is broken: that no input panics, and that what can
//! be read can be written and read again as the same.

use std::sync::{Arc, LazyLock};

use peapod_api::selector::{FieldSelector, Selector};
use peapod_schema::graph::Graph;
use peapod_schema::protobuf::Shown;
use peapod_schema::{Schema, cbor, check, decode, default, patch, protobuf};
use serde_json::Value;

/// The kinds that inputs are read as; one octet chooses.
pub const KINDS: [&str; 4] = [
    "core.v1.Pod",
    "apps.v1.Deployment",
    "core.v1.Service",
    "apiextensions.v1.CustomResourceDefinition",
];

static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let graph: Arc<Graph> = Arc::new(peapod_schema::builtin::graph(|text| Ok(text.to_owned())));
    let schema = |kind| Schema::named(&graph, kind).expect("a kind of the table");
    KINDS.into_iter().map(schema).collect()
});

/// The schema that an octet chooses.
pub fn schema(octet: u8) -> &'static Schema {
    &SCHEMAS[octet as usize % KINDS.len()]
}

/// A body in JSON.
pub fn json(input: &[u8]) {
    if let Ok(decoded) = decode::json(input) {
        let again = decode::json(decoded.value.to_string().as_bytes());
        assert_eq!(again.map(|again| again.value), Ok(decoded.value.clone()));
        conforms(decoded.value);
    }
}

/// A body in YAML. What it says can be said in JSON.
pub fn yaml(input: &[u8]) {
    if let Ok(decoded) = decode::yaml(input) {
        let again = decode::json(decoded.value.to_string().as_bytes());
        assert_eq!(again.map(|again| again.value), Ok(decoded.value));
    }
}

/// A body in CBOR, and the same bytes as a sequence.
pub fn cbor(input: &[u8]) {
    let _ = cbor::decode_sequence(input);
    if let Ok(decoded) = cbor::decode(input) {
        let written = cbor::encode(decoded.value.to_string().as_bytes()).expect("JSON");
        let again = cbor::decode(&written).map(|again| again.value);
        assert_eq!(again, Ok(decoded.value));
    }
}

/// A body in protobuf, behind an octet that chooses the kind. What is written of what was read
/// reads as the same from then on.
pub fn protobuf(input: &[u8]) {
    let Some((&kind, body)) = input.split_first() else {
        return;
    };
    let schema = schema(kind);
    let Ok(decoded) = protobuf::decode(body, schema) else {
        return;
    };
    let write = |value: &Value| {
        protobuf::encode(value.to_string().as_bytes(), schema, Shown::Object)
            .unwrap_or_else(|fault| panic!("{fault}: {value}"))
    };
    let again = protobuf::decode(&write(&decoded.value), schema)
        .expect("what was written")
        .value;
    let third = protobuf::decode(&write(&again), schema)
        .expect("what was written")
        .value;
    assert_eq!(again, third);
    conforms(again);
}

/// Checks and defaults never panic, and defaults are filled once.
fn conforms(value: Value) {
    for schema in SCHEMAS.iter() {
        let mut value = value.clone();
        if value.is_object() && check::check(&mut value, schema).is_ok() {
            default::default(&mut value, schema);
            let once = value.clone();
            default::default(&mut value, schema);
            assert_eq!(once, value);
        }
    }
}

/// Two documents in JSON, behind an octet that chooses the kind: an object and a patch of it, taken
/// in all forms.
pub fn patch(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let Some(at) = rest.iter().position(|octet| *octet == 0) else {
        return;
    };
    let (Ok(object), Ok(change)) = (decode::json(&rest[..at]), decode::json(&rest[at + 1..]))
    else {
        return;
    };
    let (object, change) = (object.value, change.value);
    let _ = patch::json(object.clone(), change.clone());
    let _ = patch::strategic(object.clone(), change.clone(), schema(kind));
    if let Ok(once) = patch::merge(object, &change) {
        assert_eq!(
            patch::merge(once.clone(), &change),
            Ok(once),
            "merging twice is merging once"
        );
    }
}

/// A label selector or a field selector, as the query has it.
pub fn selector(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(selector) = text.parse::<Selector>() {
            selector.matches_with(|_| None);
            selector.matches_with(|_| Some("a"));
        }
        let _ = text.parse::<FieldSelector>();
    }
}

/// An expression.
pub fn cel(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = peapod_cel::parse::parse(text);
    }
}
