//! What a schema says of types, which must fit together.

use serde_json::Value;

use super::Place;
use crate::registry::{FieldError, FieldErrors};

/// Checks the type of a schema, and what goes with it.
pub(super) fn types(schema: &Value, place: &Place<'_>, errors: &mut FieldErrors) {
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
