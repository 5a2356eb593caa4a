//! Strategic merge by a folder of cases, the other patches by a table.

use std::collections::BTreeMap;

use crate::golden::{cases, schema};
use peapod_schema::patch::{self, PatchError};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn strategic_merge() {
    for (name, documents) in cases("strategic") {
        let [head, original, patch, expected] = documents.try_into().expect(&name);
        let schema = schema(head["schema"].as_str().expect(&name));
        let result = patch::strategic(original, patch, &schema);
        match expected.get("error") {
            Some(message) => {
                let error = result.expect_err(&name).to_string();
                assert!(error.contains(message.as_str().unwrap()), "{name}: {error}");
            }
            None => assert_eq!(result, Ok(expected), "{name}"),
        }
    }
}

#[test]
fn json_patch_errors_tell_whose_fault_it_is() {
    let original = json!({"a": 1});
    let test = json!([{"op": "test", "path": "/a", "value": 2}]);
    assert!(matches!(
        patch::json(original.clone(), test),
        Err(PatchError::Unfit(_))
    ));
    let malformed = json!([{"op": "fly", "path": "/a"}]);
    assert!(matches!(
        patch::json(original.clone(), malformed),
        Err(PatchError::Malformed(_))
    ));
    let many = Value::Array(vec![json!({"op": "remove", "path": "/x"}); 10_001]);
    assert_eq!(
        patch::json(original.clone(), many),
        Err(PatchError::TooMany(10_001))
    );
    let good = json!([{"op": "add", "path": "/b", "value": [1]}, {"op": "add", "path": "/b/-", "value": 2}]);
    assert_eq!(
        patch::json(original, good),
        Ok(json!({"a": 1, "b": [1, 2]}))
    );
}

#[test]
fn what_is_not_there_is_null_to_a_test() {
    let operations = |value: Value| json!([{"op": "test", "path": "/b", "value": value}, {"op": "add", "path": "/b", "value": 1}]);
    let original = json!({"a": 1});
    assert_eq!(
        patch::json(original.clone(), operations(Value::Null)),
        Ok(json!({"a": 1, "b": 1}))
    );
    assert!(patch::json(original, operations(json!(0))).is_err());
    assert!(patch::json(json!({"b": 2}), operations(Value::Null)).is_err());
}

#[test]
fn merge_patch() {
    let original = json!({"a": {"b": 1, "c": [1]}, "d": 1});
    let patch = json!({"a": {"b": null, "c": [2]}, "e": 1});
    let expected = json!({"a": {"c": [2]}, "d": 1, "e": 1});
    assert_eq!(patch::merge(original.clone(), &patch), Ok(expected));
    assert!(patch::merge(original, &json!([1])).is_err());
}

fn labels() -> impl Strategy<Value = Value> {
    let label = prop_oneof![Just(Value::Null), "[xy]".prop_map(Value::from)];
    prop::collection::btree_map("[a-d]", label, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", "[1-3]", 0..5).prop_map(|map| {
        let item = |(name, image)| json!({"name": name, "image": image});
        map.into_iter().map(item).collect()
    })
}

proptest! {
    /// A patch says how things should be: saying it again changes nothing.
    #[test]
    fn strategic_merge_is_idempotent(
        (old, new) in (containers(), containers()),
        (before, after) in (labels(), labels()),
    ) {
        let original = json!({"metadata": {"labels": before}, "spec": {"containers": old}});
        let patch = json!({"metadata": {"labels": after}, "spec": {"containers": new}});
        let schema = schema("core.v1.Pod");
        let once = patch::strategic(original, patch.clone(), &schema).unwrap();
        let twice = patch::strategic(once.clone(), patch, &schema).unwrap();
        prop_assert_eq!(once, twice);
    }
}

/// RFC 7386, section 2, as it stands there.
fn merge_model(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut target = match target {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        let before = target.remove(name);
        if !value.is_null() {
            let after = merge_model(before.unwrap_or(Value::Null), value);
            target.insert(name.clone(), after);
        }
    }
    Value::Object(target)
}

fn small_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A deployment's containers by name, each with its variables by name.
type Containers = BTreeMap<String, (Option<u8>, BTreeMap<String, u8>)>;

fn by_name() -> impl Strategy<Value = Containers> {
    let variables = proptest::collection::btree_map("[xyz]", any::<u8>(), 0..3);
    let container = (proptest::option::of(any::<u8>()), variables);
    proptest::collection::btree_map("[abc]", container, 1..4)
}

fn deployment(containers: &Containers) -> Value {
    let list = containers.iter().map(|(name, (image, variables))| {
        let variables = variables.iter();
        let env = variables.map(|(name, value)| json!({"name": name, "value": value.to_string()}));
        let mut container = json!({"name": name});
        let env: Vec<Value> = env.collect();
        if !env.is_empty() {
            container["env"] = env.into();
        }
        if let Some(image) = image {
            container["image"] = image.to_string().into();
        }
        container
    });
    json!({"spec": {"template": {"spec": {"containers": list.collect::<Vec<_>>()}}}})
}

fn read_back(object: &Value) -> Containers {
    let list = object.pointer("/spec/template/spec/containers");
    let list = list.and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|container| {
            let env = container["env"].as_array().cloned().unwrap_or_default();
            let env = env
                .iter()
                .map(|one| (text(&one["name"]), text(&one["value"]).parse().unwrap()));
            let image = container["image"]
                .as_str()
                .map(|image| image.parse().unwrap());
            (text(&container["name"]), (image, env.collect()))
        })
        .collect()
}

proptest! {
    #[test]
    fn merge_patches_are_those_of_the_rfc(target in small_json(), patch in small_json()) {
        let expected = merge_model(target.clone(), &patch);
        // The patch of an object is an object.
        if target.is_object() && patch.is_object() {
            prop_assert_eq!(patch::merge(target, &patch), Ok(expected));
        }
    }

    #[test]
    fn json_patches_lead_from_one_to_another(from in small_json(), to in small_json()) {
        let operations = json!([
            {"op": "test", "path": "", "value": from},
            {"op": "replace", "path": "", "value": {"kept": from, "new": to}},
            {"op": "copy", "from": "/new", "path": "/copied"},
            {"op": "move", "from": "/kept", "path": "/moved"},
            {"op": "remove", "path": "/new"},
        ]);
        let expected = json!({"copied": to, "moved": from});
        prop_assert_eq!(patch::json(from, operations), Ok(expected));
    }

    #[test]
    fn strategic_patches_join_lists_by_name(old in by_name(), new in by_name(), gone in "[abc]") {
        let schema = schema("apps.v1.Deployment");
        let mut patch = deployment(&new);
        let mut expected = old.clone();
        for (name, (image, variables)) in &new {
            let entry = expected.entry(name.clone()).or_default();
            entry.0 = image.or(entry.0);
            entry.1.extend(variables.clone());
        }
        if !new.contains_key(&gone) {
            let list = patch.pointer_mut("/spec/template/spec/containers").unwrap();
            list.as_array_mut().unwrap().push(json!({"$patch": "delete", "name": gone}));
            expected.remove(&gone);
        }
        let result = patch::strategic(deployment(&old), patch, &schema).unwrap();
        prop_assert_eq!(read_back(&result), expected);
    }
}
