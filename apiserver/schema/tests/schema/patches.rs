//! Strategic merge by a folder of cases, the other patches by a table.

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
