//! What a schema says of how lists and maps are merged.

use serde_json::Value;

use crate::registry::{FieldError, FieldErrors};

/// Checks list types, their keys, and map types.
pub(super) fn lists(schema: &Value, path: &str, errors: &mut FieldErrors) {
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
