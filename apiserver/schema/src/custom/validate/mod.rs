//! Validation of a value by its schema, worded as kube-apiserver words it.
//!
//! Updates are ratcheted: what is as it was in the old object is not held against the new one.

mod bounds;
mod junctors;
mod types;

use serde_json::Value;

use super::{ListType, Structural, lists};
use crate::path::{Path, Step};
use types::{is_of_type, type_fault};

/// How many faults of one object are told.
const FAULTS_MAX: usize = 100;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A rule is broken.
    Invalid,
    /// The value is of the wrong type.
    Type,
    /// Something must be there.
    Required,
    /// It is none of these.
    NotSupported,
    /// Another item is the same.
    Duplicate,
    /// Longer than this.
    TooLong(u64),
    /// So many, and more than this.
    TooMany(usize, u64),
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Where: `spec.ports[0].port`; empty where upstream names no field.
    pub path: String,
    /// What.
    pub kind: FaultKind,
    /// The value, as a message shows it.
    pub value: Value,
    /// The rest of the sentence; for [`FaultKind::NotSupported`] the supported values, a line
    /// each.
    pub detail: String,
}

/// Checks an object. `old` is what it was before, if it was.
pub fn validate(object: &Value, old: Option<&Value>, schema: &Structural) -> Vec<Fault> {
    let mut faults = Vec::new();
    value(object, old, schema, &Path::ROOT, true, &mut faults);
    faults.truncate(FAULTS_MAX);
    faults
}

/// Checks a value that stands at no particular place: a default.
pub fn validate_default(default: &Value, schema: &Structural) -> Vec<Fault> {
    let mut faults = Vec::new();
    value(default, None, schema, &Path::ROOT, false, &mut faults);
    faults.truncate(FAULTS_MAX);
    faults
}

fn value(
    new: &Value,
    old: Option<&Value>,
    schema: &Structural,
    path: &Path<'_>,
    resource: bool,
    faults: &mut Vec<Fault>,
) {
    if faults.len() >= FAULTS_MAX || old == Some(new) {
        return;
    }
    if new.is_null() && schema.nullable {
        return;
    }
    if !is_of_type(new, schema) {
        return faults.push(type_fault(new, schema, path));
    }
    bounds::own(new, schema, path, faults);
    if schema.embedded {
        embedded(new, path, faults);
    }
    match new {
        Value::Object(fields) => {
            for (name, child) in fields {
                if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                if let Some(inner) = schema.child(name) {
                    let before = old.and_then(|old| old.get(name));
                    let path = path.then(Step::Field(name));
                    value(child, before, inner, &path, inner.embedded, faults);
                }
            }
        }
        Value::Array(items) => {
            lists::check(items, schema, path, faults);
            let Some(inner) = schema.items.as_deref() else {
                return;
            };
            for (index, item) in items.iter().enumerate() {
                let before = correlated(item, old, schema);
                let path = path.then(Step::Index(index));
                value(item, before, inner, &path, inner.embedded, faults);
            }
        }
        _ => {}
    }
    junctors::junctors(new, schema, path, faults);
}

/// What an object of the API inside of another must have.
fn embedded(new: &Value, path: &Path<'_>, faults: &mut Vec<Fault>) {
    for name in ["apiVersion", "kind"] {
        let text = new.get(name).and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() {
            let detail = "must not be empty".to_owned();
            push(
                faults,
                &path.then(Step::Field(name)),
                FaultKind::Required,
                Value::Null,
                detail,
            );
        }
    }
}

/// The old item that a new one stems from: that of the same keys.
pub fn correlated<'a>(
    item: &Value,
    old: Option<&'a Value>,
    schema: &Structural,
) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list else {
        return None;
    };
    let key = lists::key_of(item, keys, schema)?;
    let old = old?.as_array()?.iter();
    let mut same = old.filter(|one| lists::key_of(one, keys, schema).as_ref() == Some(&key));
    same.next()
}

fn invalid(faults: &mut Vec<Fault>, path: &Path<'_>, value: &Value, rule: String) {
    let detail = format!("{path} in body {rule}");
    push(faults, path, FaultKind::Invalid, value.clone(), detail);
}

fn push(faults: &mut Vec<Fault>, path: &Path<'_>, kind: FaultKind, value: Value, detail: String) {
    faults.push(Fault {
        path: path.to_string(),
        kind,
        value,
        detail,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: Value, object: Value, old: Option<Value>) -> Vec<String> {
        let schema = Structural::of(&json!({"type": "object", "properties": {"spec": schema}}));
        let faults = validate(
            &json!({"spec": object}),
            old.map(|old| json!({"spec": old})).as_ref(),
            &schema,
        );
        let tell = |fault: Fault| {
            format!(
                "{} {:?} {} {}",
                fault.path, fault.kind, fault.value, fault.detail
            )
        };
        faults.into_iter().map(tell).collect()
    }

    #[test]
    fn worded_as_upstream() {
        for (schema, object, expected) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec Type "string" spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer", "maximum": 10}),
                json!(15),
                "spec Invalid 15 spec in body should be less than or equal to 10",
            ),
            (
                json!({"type": "string", "pattern": "^a$"}),
                json!("b"),
                r#"spec Invalid "b" spec in body should match '^a$'"#,
            ),
            (
                json!({"type": "object", "required": ["a"]}),
                json!({}),
                "spec.a Required null ",
            ),
            (
                json!({"type": "string", "enum": ["A", "B"]}),
                json!("C"),
                "spec NotSupported \"C\" A\nB",
            ),
            (
                json!({"type": "string", "format": "ipv4"}),
                json!("x"),
                r#"spec Type "x" spec in body must be of type ipv4: "x""#,
            ),
            (
                json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object",
                       "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
                json!({"a": "1", "b": "2"}),
                r#"<nil> Invalid "" "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "a"]),
                r#"spec[1] Duplicate "a" "#,
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                       "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
                json!([{"k": "a"}, {"k": "a"}]),
                r#"spec[1] Duplicate {"k":"a"} "#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"spec Type "boolean" spec in body must be of type integer,string: "boolean""#,
            ),
        ] {
            assert_eq!(told(schema, object, None), [expected]);
        }
    }

    #[test]
    fn what_did_not_change_is_not_held_against_the_new() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
        }});
        let old = json!({"a": "long", "b": "x"});
        assert!(
            told(
                schema.clone(),
                json!({"a": "long", "b": "y"}),
                Some(old.clone())
            )
            .is_empty()
        );
        assert_eq!(
            told(schema, json!({"a": "long", "b": "yy"}), Some(old)).len(),
            1
        );
    }
}
