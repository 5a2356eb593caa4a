//! Keywords that a schema may not use, or not together.

use regex::Regex;
use serde_json::Value;

use crate::registry::{FieldError, FieldErrors};

/// The keywords of OpenAPI v3 that definitions may not use.
const FORBIDDEN: [(&str, &str); 6] = [
    ("$ref", "$ref is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("id", "id is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("additionalItems", "additionalItems is not supported"),
];

pub(super) fn keywords(schema: &Value, path: &str, errors: &mut FieldErrors) {
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
