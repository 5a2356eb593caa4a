//! JSON merge patches (RFC 7386) from what is to what should be.

use serde::Serialize;
use serde_json::{Map, Value};

/// The smallest merge patch that makes `old` into `new`; `None` when they are equal.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        let change = match before.get(name) {
            Some(old) => diff(old, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

/// [`diff`] of two typed values, both as the wire shows them.
pub fn diff_typed<T: Serialize>(old: &T, new: &T) -> Option<Value> {
    diff(&to_value(old), &to_value(new))
}

/// A typed value as the wire shows it.
pub fn to_value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("the API's types have string keys and serialise to JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn smallest_patch() {
        for (old, new, patch) in [
            (json!({"a": 1}), json!({"a": 1}), Value::Null),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 2})),
            (json!({"a": 1}), json!({}), json!({"a": null})),
            (
                json!({"a": {"b": 1, "c": 1}}),
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"c": 2}}),
            ),
            (json!({"l": [1, 2]}), json!({"l": [2]}), json!({"l": [2]})),
            (Value::Null, json!({"a": 1}), json!({"a": 1})),
        ] {
            assert_eq!(
                diff(&old, &new).unwrap_or(Value::Null),
                patch,
                "{old} {new}"
            );
        }
    }
}
