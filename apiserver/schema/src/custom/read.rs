//! From the JSON of a definition's schema to a [`Structural`].

use std::collections::BTreeMap;

use regex::RegexBuilder;
use serde_json::Value;

use super::{Additional, Bounds, JsonType, ListType, Pattern, Rule, Structural};

/// How deep a schema may nest; what is deeper is taken as any value.
const DEPTH_MAX: usize = 64;
/// Most bytes of a compiled pattern.
const PATTERN_MAX: usize = 1 << 20;

pub(super) fn structural(schema: &Value, depth: usize) -> Structural {
    if depth > DEPTH_MAX {
        return Structural {
            preserves_unknown: true,
            ..Structural::default()
        };
    }
    let below = |value: &Value| structural(value, depth + 1);
    let all = |name: &str| {
        schema[name]
            .as_array()
            .map_or(Vec::new(), |list| list.iter().map(below).collect())
    };
    let has = |name: &str| schema[name] == Value::Bool(true);
    let properties = schema["properties"].as_object();
    let properties: BTreeMap<_, _> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| (name.clone(), below(schema)))
        .collect();
    Structural {
        ty: schema["type"].as_str().and_then(JsonType::parse),
        nullable: has("nullable"),
        default: schema
            .get("default")
            .filter(|value| !value.is_null())
            .cloned(),
        properties,
        additional: match &schema["additionalProperties"] {
            Value::Bool(allowed) => Additional::Allowed(*allowed),
            values @ Value::Object(_) => Additional::Of(Box::new(below(values))),
            _ => Additional::Unsaid,
        },
        items: schema["items"]
            .is_object()
            .then(|| Box::new(below(&schema["items"]))),
        bounds: bounds(schema),
        all_of: all("allOf"),
        any_of: all("anyOf"),
        one_of: all("oneOf"),
        not: schema["not"]
            .is_object()
            .then(|| Box::new(below(&schema["not"]))),
        preserves_unknown: has("x-kubernetes-preserve-unknown-fields"),
        embedded: has("x-kubernetes-embedded-resource"),
        int_or_string: has("x-kubernetes-int-or-string"),
        list: list_type(schema),
        rules: rules(schema),
    }
}

fn bounds(schema: &Value) -> Bounds {
    let number = |name: &str| schema[name].as_f64();
    let count = |name: &str| schema[name].as_u64();
    let has = |name: &str| schema[name] == Value::Bool(true);
    Bounds {
        maximum: number("maximum"),
        exclusive_maximum: has("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: has("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text(schema, "pattern")
            .filter(|p| !p.is_empty())
            .map(|text| Pattern {
                regex: compile(&text).ok(),
                text,
            }),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: has("uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: texts(&schema["required"]),
        allowed: schema["enum"].as_array().cloned().unwrap_or_default(),
        format: text(schema, "format").unwrap_or_default(),
    }
}

/// Compiles a pattern, within a bound on its size.
pub(super) fn compile(text: &str) -> Result<regex::Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(PATTERN_MAX).build()
}

fn list_type(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(texts(&schema["x-kubernetes-list-map-keys"])),
        _ => ListType::Atomic,
    }
}

fn rules(schema: &Value) -> Vec<Rule> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let rules = rules.into_iter().flatten().map(|rule| {
        let get = |name| text(rule, name).unwrap_or_default();
        Rule {
            rule: get("rule"),
            message: get("message"),
            message_expression: get("messageExpression"),
            reason: get("reason"),
            field_path: get("fieldPath"),
            optional_old_self: rule["optionalOldSelf"] == Value::Bool(true),
        }
    });
    rules.collect()
}

fn text(schema: &Value, name: &str) -> Option<String> {
    Some(schema[name].as_str()?.to_owned())
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| Some(item.as_str()?.to_owned()))
        .collect()
}
