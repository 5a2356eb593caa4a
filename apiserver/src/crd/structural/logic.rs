//! The schemas below `allOf` and its like, which may only narrow what stands outside.

use serde_json::Value;

use super::DEPTH_MAX;
use super::keywords::keywords;
use crate::registry::{FieldError, FieldErrors};

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

/// Checks those below a schema; `outside` is what they stand in.
pub(super) fn logic(
    schema: &Value,
    outside: &Value,
    path: &str,
    depth: usize,
    errors: &mut FieldErrors,
) {
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
