//! Validation of a value by its schema, worded as kube-apiserver words it.
//!
//! Updates are ratcheted: what is as it was in the old object is not held against the new one.

use serde_json::Value;

use super::{Additional, Bounds, JsonType, ListType, Structural, formats, lists};
use crate::path::{Path, Step};

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
    own(new, schema, path, faults);
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
    junctors(new, schema, path, faults);
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

/// The bounds of one value, without its parts.
fn own(new: &Value, schema: &Structural, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let bounds = &schema.bounds;
    match new {
        Value::String(text) => of_text(text, bounds, path, faults),
        Value::Number(_) => of_number(new, bounds, path, faults),
        Value::Array(items) => of_list(items, bounds, path, faults),
        Value::Object(fields) => {
            let count = fields.len();
            if let Some(max) = bounds.max_properties.filter(|max| count as u64 > *max) {
                push(
                    faults,
                    path,
                    FaultKind::TooMany(count, max),
                    Value::Null,
                    String::new(),
                );
            }
            if let Some(min) = bounds.min_properties.filter(|min| (count as u64) < *min) {
                invalid(
                    faults,
                    path,
                    new,
                    format!("should have at least {min} properties"),
                );
            }
            for name in &bounds.required {
                if !fields.contains_key(name) {
                    push(
                        faults,
                        &path.then(Step::Field(name)),
                        FaultKind::Required,
                        Value::Null,
                        String::new(),
                    );
                }
            }
            if matches!(schema.additional, Additional::Allowed(false)) {
                for name in fields
                    .keys()
                    .filter(|name| !schema.properties.contains_key(*name))
                {
                    let told = format!("\"{path}.{name}\" is a forbidden property");
                    push(faults, path, FaultKind::Invalid, Value::from(""), told);
                }
            }
        }
        _ => {}
    }
    if !bounds.allowed.is_empty() && !bounds.allowed.contains(new) {
        let spell = |one: &Value| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
        let allowed: Vec<String> = bounds.allowed.iter().map(spell).collect();
        push(
            faults,
            path,
            FaultKind::NotSupported,
            new.clone(),
            allowed.join("\n"),
        );
    }
}

fn of_text(text: &str, bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    if bounds.max_length.is_some() || bounds.min_length.is_some() {
        let count = text.chars().count() as u64;
        if let Some(max) = bounds.max_length.filter(|max| count > *max) {
            push(
                faults,
                path,
                FaultKind::TooLong(max),
                text.into(),
                String::new(),
            );
        }
        if let Some(min) = bounds.min_length.filter(|min| count < *min) {
            invalid(
                faults,
                path,
                &text.into(),
                format!("should be at least {min} chars long"),
            );
        }
    }
    if let Some(pattern) = &bounds.pattern
        && pattern
            .regex
            .as_ref()
            .is_some_and(|regex| !regex.is_match(text))
    {
        invalid(
            faults,
            path,
            &text.into(),
            format!("should match '{}'", pattern.text),
        );
    }
    if !bounds.format.is_empty() && !formats::has(&bounds.format, text) {
        let detail = format!("{path} in body must be of type {}: {text:?}", bounds.format);
        push(faults, path, FaultKind::Type, text.into(), detail);
    }
}

fn of_number(new: &Value, bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let number = new.as_f64().unwrap_or_default();
    if let Some(max) = bounds.maximum {
        match bounds.exclusive_maximum {
            true if number >= max => {
                invalid(faults, path, new, format!("should be less than {max}"))
            }
            false if number > max => invalid(
                faults,
                path,
                new,
                format!("should be less than or equal to {max}"),
            ),
            _ => {}
        }
    }
    if let Some(min) = bounds.minimum {
        match bounds.exclusive_minimum {
            true if number <= min => {
                invalid(faults, path, new, format!("should be greater than {min}"))
            }
            false if number < min => invalid(
                faults,
                path,
                new,
                format!("should be greater than or equal to {min}"),
            ),
            _ => {}
        }
    }
    if let Some(step) = bounds.multiple_of.filter(|step| *step > 0.0) {
        let times = number / step;
        if (times - times.round()).abs() > 1e-9 {
            invalid(faults, path, new, format!("should be a multiple of {step}"));
        }
    }
    let (low, high) = match bounds.format.as_str() {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "float" => (f64::from(f32::MIN), f64::from(f32::MAX)),
        _ => return,
    };
    if !(low..=high).contains(&number) {
        let detail = format!(
            "Checked value must be of type integer with format {}",
            bounds.format
        );
        push(faults, path, FaultKind::Invalid, new.clone(), detail);
    }
}

fn of_list(items: &[Value], bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let count = items.len();
    if let Some(max) = bounds.max_items.filter(|max| count as u64 > *max) {
        push(
            faults,
            path,
            FaultKind::TooMany(count, max),
            Value::Null,
            String::new(),
        );
    }
    if let Some(min) = bounds.min_items.filter(|min| (count as u64) < *min) {
        invalid(
            faults,
            path,
            &Value::from(count),
            format!("should have at least {min} items"),
        );
    }
    if bounds.unique_items {
        let mut seen = std::collections::HashSet::new();
        if !items.iter().all(|item| seen.insert(item.to_string())) {
            invalid(
                faults,
                path,
                &Value::Array(items.to_vec()),
                "shouldn't contain duplicates".to_owned(),
            );
        }
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`, whose faults upstream tells without a field.
fn junctors(new: &Value, schema: &Structural, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let faults_of = |inner: &Structural| {
        let mut found = Vec::new();
        value(new, None, inner, path, false, &mut found);
        found
    };
    let tell = |faults: &mut Vec<Fault>, what: String| {
        faults.push(Fault {
            path: "<nil>".to_owned(),
            kind: FaultKind::Invalid,
            value: Value::from(""),
            detail: format!("\"{path}\" {what}"),
        });
    };
    let mut failed = false;
    for inner in &schema.all_of {
        let found = faults_of(inner);
        failed |= !found.is_empty();
        faults.extend(found);
    }
    if failed {
        tell(faults, "must validate all the schemas (allOf)".to_owned());
    }
    if !schema.any_of.is_empty() {
        let outcomes: Vec<Vec<Fault>> = schema.any_of.iter().map(faults_of).collect();
        if outcomes.iter().all(|found| !found.is_empty()) {
            tell(
                faults,
                "must validate at least one schema (anyOf)".to_owned(),
            );
            faults.extend(
                outcomes
                    .into_iter()
                    .min_by_key(Vec::len)
                    .unwrap_or_default(),
            );
        }
    }
    if !schema.one_of.is_empty() {
        let outcomes: Vec<Vec<Fault>> = schema.one_of.iter().map(faults_of).collect();
        let fitting = outcomes.iter().filter(|found| found.is_empty()).count();
        match fitting {
            1 => {}
            0 => {
                tell(
                    faults,
                    "must validate one and only one schema (oneOf). Found none valid".to_owned(),
                );
                faults.extend(
                    outcomes
                        .into_iter()
                        .min_by_key(Vec::len)
                        .unwrap_or_default(),
                );
            }
            many => tell(
                faults,
                format!(
                    "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                ),
            ),
        }
    }
    if schema
        .not
        .as_deref()
        .is_some_and(|inner| faults_of(inner).is_empty())
    {
        tell(faults, "must not validate the schema (not)".to_owned());
    }
}

fn is_of_type(value: &Value, schema: &Structural) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    let Some(ty) = schema.ty else {
        return true;
    };
    match ty {
        JsonType::Object => value.is_object(),
        JsonType::Array => value.is_array(),
        JsonType::String => value.is_string(),
        JsonType::Integer => is_integer(value),
        JsonType::Number => value.is_number(),
        JsonType::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value
            .as_f64()
            .is_some_and(|number| number.fract() == 0.0 && number.abs() < 9.3e18)
}

fn type_fault(value: &Value, schema: &Structural, path: &Path<'_>) -> Fault {
    let given = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = match schema.ty {
        _ if schema.int_or_string => "integer,string",
        Some(ty) => ty.as_str(),
        None => "",
    };
    Fault {
        path: path.to_string(),
        kind: FaultKind::Type,
        value: given.into(),
        detail: format!("{path} in body must be of type {wanted}: {given:?}"),
    }
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
