//! What a definition's schema must be: structural, so that it can be pruned by, defaulted and
//! published; of keywords that are cheap to check; with defaults that it itself accepts.

mod default;
mod keywords;
mod lists;
mod logic;
mod types;

#[cfg(test)]
mod tests;

use peapod_schema::custom::Structural;
use serde_json::Value;

use super::rules::Rules;
use crate::registry::{FieldError, FieldErrors};
use default::default;
use keywords::keywords;
use lists::lists;
use logic::logic;
use types::types;

/// How deep a schema may nest.
const DEPTH_MAX: usize = 64;
/// Most patterns, and most rules, of a schema: each is compiled and kept.
const COMPILED_MAX: usize = 2000;
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

/// Where a schema stands.
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
