//! What a definition's schema must be: structural, so that it can be pruned by, defaulted and
//! published; of keywords that are cheap to check; with defaults that it itself accepts.

use peapod_schema::custom::{Structural, validate};
use regex::Regex;
use serde_json::Value;

use super::objects::told;
use super::rules::Rules;
use crate::registry::{FieldError, FieldErrors};

/// How deep a schema may nest.
const DEPTH_MAX: usize = 64;
/// Most patterns, and most rules, of a schema: each is compiled and kept.
const COMPILED_MAX: usize = 2000;
/// The keywords of OpenAPI v3 that definitions may not use.
const FORBIDDEN: [(&str, &str); 6] = [
    ("$ref", "$ref is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("id", "id is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("additionalItems", "additionalItems is not supported"),
];
/// The keywords that may not stand below `allOf` and its like.
const NOT_INSIDE: [&str; 11] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];
const LOGIC: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Checks a schema that stands at a path.
pub fn check(schema: &Value, path: &str, errors: &mut FieldErrors) {
    if schema["type"] != "object" {
        match schema["type"].as_str() {
            None => errors.push(FieldError::required(
                format!("{path}.type"),
                "must not be empty at the root",
            )),
            Some(other) => errors.push(FieldError::invalid(
                format!("{path}.type"),
                other,
                "must be object at the root",
            )),
        }
    }
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(
            format!("{path}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    metadata(
        &schema["properties"]["metadata"],
        &format!("{path}.properties[metadata]"),
        errors,
    );
    let place = Place {
        path,
        depth: 0,
        root: true,
    };
    node(schema, &place, errors);
    let patterns = count(schema, "pattern");
    let rules = count(schema, "rule");
    for (what, count) in [("patterns", patterns), ("rules", rules)] {
        if count > COMPILED_MAX {
            let why = format!("has {count} {what}; at most {COMPILED_MAX} are compiled");
            return errors.push(FieldError::forbidden(path, why));
        }
    }
    if errors.is_empty() {
        Rules::compile(&Structural::of(schema), path, errors);
    }
}

/// How often a keyword stands anywhere in a schema.
fn count(schema: &Value, keyword: &str) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(|item| count(item, keyword)).sum(),
        Value::Object(fields) => {
            let here = usize::from(fields.get(keyword).is_some_and(Value::is_string));
            fields
                .values()
                .map(|value| count(value, keyword))
                .sum::<usize>()
                + here
        }
        _ => 0,
    }
}

struct Place<'a> {
    path: &'a str,
    depth: usize,
    root: bool,
}

/// The metadata is the API's own; a definition may only narrow names.
fn metadata(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, _) in
        properties.filter(|(name, _)| !matches!(name.as_str(), "name" | "generateName"))
    {
        let place = format!("{path}.properties[{name}]");
        errors.push(FieldError::forbidden(place, "must not specify anything other than name and generateName, but metadata is implicitly specified"));
    }
}

fn node(schema: &Value, place: &Place<'_>, errors: &mut FieldErrors) {
    let path = place.path;
    if place.depth > DEPTH_MAX {
        return errors.push(FieldError::forbidden(
            path,
            format!("nests deeper than {DEPTH_MAX}"),
        ));
    }
    keywords(schema, path, errors);
    types(schema, place, errors);
    lists(schema, path, errors);
    parts(schema, place, errors);
    logic(schema, schema, path, place.depth, errors);
    default(schema, path, errors);
}

fn keywords(schema: &Value, path: &str, errors: &mut FieldErrors) {
    for (keyword, why) in FORBIDDEN {
        let given = schema.get(keyword).filter(|value| !value.is_null());
        if given.is_some_and(|value| value != "" && value.as_object().is_none_or(|o| !o.is_empty()))
        {
            errors.push(FieldError::forbidden(format!("{path}.{keyword}"), why));
        }
    }
    if schema["uniqueItems"] == true {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
    }
    if schema["additionalProperties"] == Value::Bool(false) {
        let why = "additionalProperties cannot be set to false";
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            why,
        ));
    }
    let has_fields = schema["properties"]
        .as_object()
        .is_some_and(|fields| !fields.is_empty());
    if has_fields && schema["additionalProperties"].is_object() {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            why,
        ));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(fault) = Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {fault}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
    }
    let positive = schema["multipleOf"].as_f64().is_none_or(|step| step > 0.0);
    if !positive {
        errors.push(FieldError::invalid(
            format!("{path}.multipleOf"),
            schema["multipleOf"].clone(),
            "must be greater than 0",
        ));
    }
}

fn types(schema: &Value, place: &Place<'_>, errors: &mut FieldErrors) {
    let path = place.path;
    let has = |name: &str| schema[name] == Value::Bool(true);
    let open = has("x-kubernetes-preserve-unknown-fields");
    let either = has("x-kubernetes-int-or-string");
    match schema["type"].as_str() {
        Some(_) if either => {
            errors.push(FieldError::forbidden(
                format!("{path}.type"),
                "must be empty if x-kubernetes-int-or-string is true",
            ));
        }
        None if !either && !open && !place.root => {
            errors.push(FieldError::required(
                format!("{path}.type"),
                "must not be empty for specified object fields",
            ));
        }
        Some("object" | "array" | "string" | "integer" | "number" | "boolean") | None => {}
        Some(other) => errors.push(FieldError::not_supported(
            format!("{path}.type"),
            other,
            &["array", "boolean", "integer", "number", "object", "string"],
        )),
    }
    let object = schema["type"] == "object";
    if open && schema.get("type").is_some() && !object {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            schema["type"].clone(),
            "must be object if x-kubernetes-preserve-unknown-fields is true",
        ));
    }
    if has("x-kubernetes-embedded-resource") {
        if !object {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                schema["type"].clone(),
                "must be object if x-kubernetes-embedded-resource is true",
            ));
        } else if !open && schema.get("properties").is_none() {
            errors.push(FieldError::required(format!("{path}.properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"));
        }
    }
    for (keyword, owner) in [
        ("items", "array"),
        ("properties", "object"),
        ("additionalProperties", "object"),
    ] {
        let given = schema.get(keyword).is_some_and(|value| !value.is_null());
        if given && schema["type"].as_str().is_some_and(|ty| ty != owner) {
            let why = format!("must be {owner} if {keyword} is specified");
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                schema["type"].clone(),
                why,
            ));
        }
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        let why = match schema["items"].is_array() {
            true => "items must be a schema object and not an array",
            false => "must be specified",
        };
        errors.push(FieldError::required(format!("{path}.items"), why));
    }
}

fn lists(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let (list, map) = ("x-kubernetes-list-type", "x-kubernetes-map-type");
    let keys = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let kind = schema[list].as_str();
    if let Some(kind) = kind {
        if schema["type"] != "array" {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                schema["type"].clone(),
                "must be array if x-kubernetes-list-type is specified",
            ));
        }
        if !["atomic", "map", "set"].contains(&kind) {
            errors.push(FieldError::not_supported(
                format!("{path}.{list}"),
                kind,
                &["atomic", "map", "set"],
            ));
        }
    }
    let items = &schema["items"];
    match kind {
        Some("map") => {
            if items["type"] != "object" {
                errors.push(FieldError::invalid(
                    format!("{path}.items.type"),
                    items["type"].clone(),
                    "must be object if parent array's x-kubernetes-list-type is map",
                ));
            }
            if keys.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.x-kubernetes-list-map-keys"),
                    "must not be empty if x-kubernetes-list-type is map",
                ));
            }
            for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
                map_key(
                    items,
                    key,
                    &format!("{path}.x-kubernetes-list-map-keys[{index}]"),
                    path,
                    errors,
                );
            }
        }
        _ if !keys.is_empty() => errors.push(FieldError::invalid(
            format!("{path}.{list}"),
            kind.unwrap_or_default(),
            "must be map if x-kubernetes-list-map-keys is non-empty",
        )),
        Some("set") => {
            let nested = match items["type"].as_str() {
                Some("array") => items[list].as_str() != Some("atomic"),
                Some("object") => items[map].as_str() != Some("atomic"),
                _ => false,
            };
            if nested {
                errors.push(FieldError::forbidden(
                    format!("{path}.items"),
                    "set items must be scalar or atomic",
                ));
            }
        }
        _ => {}
    }
    if let Some(kind) = schema[map].as_str() {
        if schema["type"] != "object" {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                schema["type"].clone(),
                "must be object if x-kubernetes-map-type is specified",
            ));
        }
        if !["atomic", "granular"].contains(&kind) {
            errors.push(FieldError::not_supported(
                format!("{path}.{map}"),
                kind,
                &["atomic", "granular"],
            ));
        }
    }
}

fn map_key(items: &Value, key: &str, path: &str, list: &str, errors: &mut FieldErrors) {
    let Some(field) = items["properties"].get(key) else {
        let why = "entries must all be names of item properties";
        return errors.push(FieldError::invalid(path, key, why));
    };
    if matches!(field["type"].as_str(), Some("array" | "object")) {
        let place = format!("{list}.items.properties[{key}].type");
        errors.push(FieldError::invalid(
            place,
            field["type"].clone(),
            "must be a scalar type if parent array's x-kubernetes-list-type is map",
        ));
    }
    let required = items["required"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == key));
    if !required && field.get("default").is_none() {
        let place = format!("{list}.items.properties[{key}].default");
        errors.push(FieldError::required(place, "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"));
    }
}

fn parts(schema: &Value, place: &Place<'_>, errors: &mut FieldErrors) {
    let mut below = |schema: &Value, path: String| {
        let place = Place {
            path: &path,
            depth: place.depth + 1,
            root: false,
        };
        node(schema, &place, errors);
    };
    let path = place.path;
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        // `apiVersion`, `kind` and `metadata` are the API's own.
        let own = place.root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        if !own {
            below(field, format!("{path}.properties[{name}]"));
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            below(&schema[keyword], format!("{path}.{keyword}"));
        }
    }
}

/// The schemas below `allOf` and its like, which may only narrow what stands outside.
fn logic(schema: &Value, outside: &Value, path: &str, depth: usize, errors: &mut FieldErrors) {
    if depth > DEPTH_MAX {
        return;
    }
    for keyword in LOGIC {
        for (index, inner) in schema[keyword].as_array().into_iter().flatten().enumerate() {
            inside(
                inner,
                outside,
                &format!("{path}.{keyword}[{index}]"),
                depth + 1,
                errors,
            );
        }
    }
    if schema["not"].is_object() {
        inside(
            &schema["not"],
            outside,
            &format!("{path}.not"),
            depth + 1,
            errors,
        );
    }
}

fn inside(schema: &Value, outside: &Value, path: &str, depth: usize, errors: &mut FieldErrors) {
    if depth > DEPTH_MAX {
        return errors.push(FieldError::forbidden(
            path,
            format!("nests deeper than {DEPTH_MAX}"),
        ));
    }
    keywords(schema, path, errors);
    let either = outside["x-kubernetes-int-or-string"] == true;
    for keyword in NOT_INSIDE {
        let given = schema
            .get(keyword)
            .is_some_and(|value| !value.is_null() && *value != false && value != "");
        if given && !(either && keyword == "type") {
            errors.push(FieldError::forbidden(
                format!("{path}.{keyword}"),
                "must be empty to be structural",
            ));
        }
    }
    let open = outside["x-kubernetes-preserve-unknown-fields"] == true;
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{path}.properties[{name}]");
        match outside["properties"].get(name).or_else(|| {
            outside["additionalProperties"]
                .is_object()
                .then(|| &outside["additionalProperties"])
        }) {
            Some(outer) => inside(inner, outer, &place, depth + 1, errors),
            None if open => {}
            None => {
                let outer = path
                    .find(".allOf[")
                    .or(path.find(".anyOf["))
                    .or(path.find(".oneOf["))
                    .or(path.find(".not"));
                let outer = &path[..outer.unwrap_or(path.len())];
                errors.push(FieldError::required(
                    format!("{outer}.properties[{name}]"),
                    format!("because it is defined in {place}"),
                ));
            }
        }
    }
    if schema["items"].is_object() {
        inside(
            &schema["items"],
            &outside["items"],
            &format!("{path}.items"),
            depth + 1,
            errors,
        );
    }
    logic(schema, outside, path, depth, errors);
}

/// A default must be what the schema accepts, and nothing that it would prune.
fn default(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let Some(default) = schema.get("default").filter(|value| !value.is_null()) else {
        return;
    };
    let path = format!("{path}.default");
    let structural = Structural::of(schema);
    let mut pruned = default.clone();
    if !peapod_schema::custom::prune::prune(&mut pruned, &structural).is_empty() {
        errors.push(FieldError::invalid(
            &path,
            default.clone(),
            "must not have unknown fields",
        ));
    }
    let mut filled = default.clone();
    peapod_schema::custom::defaults::fill(&mut filled, &structural);
    for mut fault in validate::validate_default(&filled, &structural) {
        fault.path = match fault.path.as_str() {
            "" => path.clone(),
            inner => format!("{path}.{inner}"),
        };
        errors.push(told(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn told_of(schema: Value) -> String {
        let mut errors = FieldErrors::new();
        check(&schema, "spec.validation.openAPIV3Schema", &mut errors);
        errors
            .to_string()
            .replace("spec.validation.openAPIV3Schema", "S")
    }

    fn field(schema: Value) -> Value {
        json!({"type": "object", "properties": {"a": schema}})
    }

    #[test]
    fn what_is_not_structural_is_refused() {
        for (schema, expected) in [
            (
                json!({}),
                "S.type: Required value: must not be empty at the root",
            ),
            (
                field(json!({})),
                "S.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                field(json!({"type": "array"})),
                "S.properties[a].items: Required value: must be specified",
            ),
            (
                field(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
                "S.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
            (
                field(
                    json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
                ),
                "S.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                field(json!({"type": "object", "anyOf": [{"properties": {"x": {}}}]})),
                "S.properties[a].properties[x]: Required value: because it is defined in S.properties[a].anyOf[0].properties[x]",
            ),
            (
                field(json!({"type": "integer", "default": "x"})),
                r#"S.properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#,
            ),
        ] {
            assert_eq!(told_of(schema), expected);
        }
    }

    #[test]
    fn what_is_common_is_accepted() {
        let schema = json!({"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                     "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
            "n": {"type": "integer", "default": 3, "minimum": 1},
        }});
        assert_eq!(told_of(schema), "[]");
    }

    /// Anything that looks like a schema, and much that does not.
    fn anything() -> impl Strategy<Value = Value> {
        let keywords = prop::sample::select(vec![
            "type",
            "properties",
            "items",
            "additionalProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "default",
            "required",
            "enum",
            "pattern",
            "format",
            "minimum",
            "maxItems",
            "nullable",
            "a",
            "b",
            "x-kubernetes-validations",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "rule",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
            "x-kubernetes-embedded-resource",
        ]);
        let words = prop::sample::select(vec![
            "object",
            "array",
            "string",
            "integer",
            "map",
            "set",
            "a",
            "self.a == 1",
            "[",
            "date",
            "a.*",
        ]);
        let leaf = prop_oneof![
            words.prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            (-3..100_i64).prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(5, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((keywords.clone(), inner), 0..5).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_object_panics(schema in anything(), mut object in anything()) {
            let mut errors = FieldErrors::new();
            check(&schema, "S", &mut errors);
            let made = peapod_schema::Schema::of_custom("com.example.v1.X", &schema, |text| Ok(text.to_owned()));
            let structural = Structural::of(&schema);
            let rules = Rules::compile(&structural, "S", &mut errors);
            let old = object.clone();
            let _ = peapod_schema::check::check(&mut object, &made);
            peapod_schema::default::default(&mut object, &made);
            validate::validate(&object, Some(&old), &structural);
            rules.check(&object, Some(&old), &structural, &mut errors);
        }
    }
}
