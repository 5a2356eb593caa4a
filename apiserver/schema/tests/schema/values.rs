//! Values of a shape, at random from a seed: what property tests are run on.

use peapod_schema::graph::{Node, Scalar, Type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// Types nest at most this deep.
const DEPTH: usize = 9;
/// Fields of features that are alpha upstream, which have no protobuf number here, or which other
/// readers do not know yet.
const UNNUMBERED: &[&str] = &[
    "bools",
    "ints",
    "nodeAllocatableResourceClaimStatuses",
    "nodeAllocatableResourceMappings",
    "preventPodSchedulingIfMissing",
    "schedulingGroup",
    "shardInfo",
    "strings",
    "versions",
    "volumeStatus",
];

/// A value of a kind, without `kind` and `apiVersion`.
pub fn of(node: Node<'_>, seed: u64) -> Value {
    let mut rng = StdRng::seed_from_u64(seed);
    object(node, &mut rng, DEPTH)
}

fn object(node: Node<'_>, rng: &mut StdRng, depth: usize) -> Value {
    let Type::Object(of) = node.ty() else {
        return json!({});
    };
    // Large types get few fields, so that values stay small.
    let odds = (6.0 / of.fields.len() as f64).clamp(0.1, 0.7);
    let mut out = Map::new();
    for field in &of.fields {
        let named = ["kind", "apiVersion"].contains(&field.name.as_ref());
        let typed = depth == DEPTH
            || of.field("metadata").is_some()
            || ["meta.v1.APIGroup", "meta.v1.DeleteOptions"].contains(&of.name.as_ref());
        let written = rng.random_bool(odds) && !(named && typed);
        if written && !unnumbered(&of.name, &field.name) {
            let child = node.child(&field.name).unwrap();
            let value = shaped(&of.name, &field.name, node, rng, depth)
                .unwrap_or_else(|| value(child, rng, depth - 1));
            out.insert(field.name.to_string(), value);
        }
    }
    Value::Object(out)
}

fn unnumbered(ty: &str, field: &str) -> bool {
    match (ty, field) {
        (
            "resource.v1.DeviceAttribute"
            | "core.v1.PodSpec"
            | "core.v1.PodStatus"
            | "meta.v1.ListMeta",
            field,
        )
        | ("core.v1.VolumeMountStatus" | "resource.v1.Device", field)
        | ("storage.v1.CSIDriverSpec", field) => UNNUMBERED.contains(&field),
        ("core.v1.ResourceHealth", "message") => true,
        _ => false,
    }
}

/// Fields whose JSON is of several shapes.
fn shaped(ty: &str, field: &str, node: Node<'_>, rng: &mut StdRng, depth: usize) -> Option<Value> {
    let mut schema = || match depth {
        0..=2 => json!({"type": "string"}),
        _ => object(node, rng, depth - 1),
    };
    Some(match (ty, field) {
        ("apiextensions.v1.CustomResourceSubresources", "status") => json!({}),
        ("apiextensions.v1.JSONSchemaProps", "items") => match depth % 2 {
            0 => schema(),
            _ => json!([schema(), schema()]),
        },
        ("apiextensions.v1.JSONSchemaProps", "additionalItems" | "additionalProperties") => {
            match depth % 3 {
                0 => schema(),
                1 => json!(true),
                _ => json!(false),
            }
        }
        ("apiextensions.v1.JSONSchemaProps", "dependencies") => {
            json!({"a": schema(), "b": ["c", "d"]})
        }
        _ => return None,
    })
}

fn value(node: Node<'_>, rng: &mut StdRng, depth: usize) -> Value {
    match node.ty() {
        Type::Object(_) if depth == 0 => json!({}),
        Type::Object(_) => object(node, rng, depth),
        Type::List(list) => {
            let count = rng.random_range(1..3);
            let items = (0..count).map(|_| value(node.to(list.item), rng, depth.saturating_sub(1)));
            items.collect()
        }
        Type::Map(map) => {
            let of = node.to(map.value);
            let mut out = Map::new();
            for key in ["a", "b/c"].iter().take(rng.random_range(1..3)) {
                out.insert((*key).to_owned(), value(of, rng, depth.saturating_sub(1)));
            }
            Value::Object(out)
        }
        Type::Scalar(kind) => scalar(*kind, rng),
    }
}

/// A scalar that is not empty: whether an empty one is told from a missing one depends on the
/// field.
fn scalar(kind: Scalar, rng: &mut StdRng) -> Value {
    let number = rng.random_range(1..1_000_000);
    match kind {
        Scalar::String => format!("text-{number}-ä").into(),
        Scalar::Int32 | Scalar::Int64 if number % 5 == 0 => (-number).into(),
        Scalar::Int32 | Scalar::Int64 => number.into(),
        Scalar::Number => (number as f64 / 8.0).into(),
        Scalar::Bool => true.into(),
        Scalar::Quantity => format!("{number}Mi").into(),
        Scalar::IntOrString | Scalar::Int64OrString if number % 2 == 0 => number.into(),
        Scalar::IntOrString | Scalar::Int64OrString => format!("{}%", number % 100).into(),
        Scalar::Time => "2024-02-29T23:59:58Z".into(),
        Scalar::MicroTime => format!("2024-02-29T23:59:58.{number:06}Z").into(),
        Scalar::Bytes => ["AAH/", "aGk="][number as usize % 2].into(),
        Scalar::Any => json!({"f:a": {}, "n": [number, null, "x"]}),
    }
}
