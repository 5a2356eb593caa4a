//! `v1 ConfigMap`

use peapod_api::field_path::FieldPath;
use peapod_api::names;
use serde_json::Value;

use crate::registry::{Column, FieldError, FieldErrors, Kind, Rules, value};

/// Most bytes of all values together.
const SIZE_MAX: usize = 1024 * 1024;

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "ConfigMap", "configmaps")
        .short_names(&["cm"])
        .columns(vec![
            Column::name(),
            Column::computed("Data", "integer", |map, _| {
                let count = |field| value::map(map, field).map_or(0, serde_json::Map::len);
                (count("data") + count("binaryData")).into()
            })
            .described("Number of keys in data and binaryData."),
            Column::age(),
        ])
        .rules(ConfigMaps)
}

struct ConfigMaps;

impl Rules for ConfigMaps {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let mut size = 0;
        for field in ["data", "binaryData"] {
            let path = FieldPath::of(field);
            for (key, text) in value::map(object, field).into_iter().flatten() {
                errors.check(&path.key(key), key, names::config_key(key));
                size += text.as_str().map_or(0, str::len);
                if field == "binaryData"
                    && value::map(object, "data").is_some_and(|d| d.contains_key(key))
                {
                    let why = "duplicate of key present in data";
                    errors.push(FieldError::invalid(path.key(key), key.as_str(), why));
                }
            }
        }
        if size > SIZE_MAX {
            errors.push(FieldError::too_long("", SIZE_MAX));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if !value::truth(old, "immutable") {
            return;
        }
        let why = "field is immutable when `immutable` is set";
        if !value::truth(new, "immutable") {
            errors.push(FieldError::forbidden("immutable", why));
        }
        for field in ["data", "binaryData"] {
            if value::map(new, field) != value::map(old, field) {
                errors.push(FieldError::forbidden(field, why));
            }
        }
    }
}
