//! Server-side apply and the managers of other writes: a folder of scripts, and properties.

use std::collections::BTreeMap;

use crate::golden::{cases, schema};
use peapod_schema::apply::{self, ApplyError, FieldSet, Writer};
use peapod_schema::{Schema, default};
use proptest::prelude::*;
use serde_json::{Value, json};

static NOTHING: FieldSet = FieldSet::EMPTY;

fn writer<'a>(manager: &'a str, subresource: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource,
        now,
        ignored: &NOTHING,
    }
}

/// Who owns what: `alice apply` to the paths.
fn owners(object: &Value) -> BTreeMap<String, Vec<String>> {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let owner = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_lowercase();
        let name = format!(
            "{} {} {}",
            text("manager"),
            text("operation"),
            text("subresource")
        );
        let fields = FieldSet::from_fields_v1(&entry["fieldsV1"]);
        (name.trim_end().to_owned(), fields.paths())
    };
    entries.into_iter().flatten().map(owner).collect()
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    object
}

fn step(
    live: Option<&Value>,
    step: &Value,
    now: &str,
    schema: &Schema,
) -> Result<Value, ApplyError> {
    let text = |name: &str| step[name].as_str().unwrap_or_default();
    let writer = writer(text("by"), text("subresource"), now);
    match (step.get("apply"), step.get("update")) {
        (Some(config), None) => {
            let force = step["force"].as_bool().unwrap_or_default();
            apply::apply(live, config.clone(), schema, writer, force, &|object| {
                default::default(object, schema);
            })
        }
        (None, Some(object)) => {
            let mut object = object.clone();
            apply::update(live, &mut object, schema, writer);
            Ok(object)
        }
        _ => panic!("a step applies or updates: {step}"),
    }
}

#[test]
fn scripts() {
    for (name, documents) in cases("apply") {
        let schema = schema(documents[0]["schema"].as_str().expect(&name));
        let mut live = None;
        for (index, pair) in documents[1..].chunks(2).enumerate() {
            let [action, expected] = pair else {
                panic!("{name}: a step without an outcome")
            };
            let now = format!("2026-01-02T03:04:{index:02}Z");
            let place = format!("{name}, step {}", index + 1);
            let result = step(live.as_ref(), action, &now, &schema);
            let object = match (expected.get("error"), result) {
                (Some(message), result) => {
                    let error = result.expect_err(&place).to_string();
                    assert_eq!(error, message.as_str().unwrap(), "{place}");
                    continue;
                }
                (None, result) => result.unwrap_or_else(|e| panic!("{place}: {e}")),
            };
            if let Some(shape) = expected.get("object") {
                assert_eq!(&without_managers(&object), shape, "{place}");
            }
            if let Some(wanted) = expected.get("owners") {
                assert_eq!(&json!(owners(&object)), wanted, "{place}");
            }
            live = Some(object);
        }
    }
}

/// A configuration of a Pod: labels, and containers with images.
fn config() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-c]", "[12]", 0..3);
    let containers = prop::collection::btree_map("[x-z]", "[12]", 0..3);
    (labels, containers).prop_map(|(labels, containers)| {
        let item = |(name, image)| json!({"name": name, "image": image});
        let containers: Vec<Value> = containers.into_iter().map(item).collect();
        json!({"metadata": {"name": "p", "labels": labels}, "spec": {"containers": containers}})
    })
}

fn steps() -> impl Strategy<Value = Vec<(String, bool, Value)>> {
    prop::collection::vec(("[pqr]", any::<bool>(), config()), 1..8)
}

/// The leaf paths of an object that a manager may own.
fn leaves(object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for key in object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        out.push(format!(".metadata.labels.{}", key.0));
    }
    for item in object["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if item.get("image").is_some() {
            out.push(format!(".spec.containers[name={}].image", item["name"]));
        }
    }
    out
}

proptest! {
    /// Whatever is applied and updated in whatever order, every field that is there has an
    /// owner, and every owner of a leaf owns something that is there.
    #[test]
    fn ownership_is_conserved(script in steps()) {
        let schema = schema("core.v1.Pod");
        let mut live: Option<Value> = None;
        for (index, (manager, is_apply, object)) in script.into_iter().enumerate() {
            let now = format!("2026-01-02T03:04:{index:02}Z");
            let writer = writer(&manager, "", &now);
            let next = if is_apply {
                apply::apply(live.as_ref(), object, &schema, writer, true, &|_| {}).unwrap()
            } else {
                let mut next = object;
                apply::update(live.as_ref(), &mut next, &schema, writer);
                next
            };
            let owned: Vec<String> = owners(&next).into_values().flatten().collect();
            let there = leaves(&next);
            for path in &there {
                prop_assert!(owned.contains(path), "{path} of {next} has no owner: {owned:?}");
            }
            for path in owned.iter().filter(|path| path.ends_with(".image")) {
                prop_assert!(there.contains(path), "{path} is owned but not in {next}");
            }
            live = Some(next);
        }
    }

    /// To apply the same again changes nothing at all, not even the time.
    #[test]
    fn apply_is_idempotent(first in config(), second in config()) {
        let schema = schema("core.v1.Pod");
        let live = apply::apply(None, first, &schema, writer("p", "", "2026-01-02T03:04:05Z"), true, &|_| {}).unwrap();
        let once = apply::apply(Some(&live), second.clone(), &schema, writer("q", "", "2026-01-02T03:04:06Z"), true, &|_| {}).unwrap();
        let twice = apply::apply(Some(&once), second, &schema, writer("q", "", "2026-01-02T03:04:07Z"), false, &|_| {}).unwrap();
        prop_assert_eq!(once, twice);
    }

    /// What an applier wants is what is there afterwards.
    #[test]
    fn apply_gives_what_it_asks(first in config(), second in config()) {
        let schema = schema("core.v1.Pod");
        let live = apply::apply(None, first, &schema, writer("p", "", "2026-01-02T03:04:05Z"), true, &|_| {}).unwrap();
        let after = apply::apply(Some(&live), second.clone(), &schema, writer("q", "", "2026-01-02T03:04:06Z"), true, &|_| {}).unwrap();
        for path in leaves(&second) {
            prop_assert!(leaves(&after).contains(&path));
        }
    }

    #[test]
    fn sets_survive_their_spelling(text in "[ -~]{0,40}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = FieldSet::from_fields_v1(&value);
        }
        let odd = json!({format!("f:{text}"): {}, format!("k:{text}"): {".": {}, "f:x": {}}});
        let set = FieldSet::from_fields_v1(&odd);
        prop_assert_eq!(FieldSet::from_fields_v1(&set.clone().into_fields_v1()), set);
    }
}
