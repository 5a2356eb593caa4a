//! What is told of schemas, and that none makes anything panic.

use super::*;
use peapod_schema::custom::validate;
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
