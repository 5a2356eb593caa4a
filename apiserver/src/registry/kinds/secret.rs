//! `v1 Secret`

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peapod_api::names;
use serde_json::{Map, Value};

use crate::registry::{At, Column, FieldError, FieldErrors, Kind, Rules, value};

/// Most bytes of all values together.
const SIZE_MAX: usize = 1024 * 1024;
const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// The keys that a type demands.
const DEMANDED: &[(&str, &[&str])] = &[
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
];

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Secret", "secrets")
        .selectable(&["type"])
        .columns(vec![
            Column::name(),
            Column::path("Type", "string", "type"),
            Column::computed("Data", "string", |secret, _| {
                let count = value::map(secret, "data").map_or(0, Map::len);
                count.to_string().into()
            }),
            Column::age(),
        ])
        .rules(Secrets)
}

struct Secrets;

impl Rules for Secrets {
    /// `stringData` is for writing only: it becomes part of `data`.
    fn defaults(&self, object: &mut Value) {
        let Some(Value::Object(plain)) = value::remove(object, "stringData") else {
            return;
        };
        for (key, text) in plain {
            let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
            let data = value::entry(object, "data");
            if !data.is_object() {
                *data = Value::Object(Map::new());
            }
            data[key] = encoded.into();
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let data = root.at("data");
        let mut size = 0;
        for (key, text) in data.entries() {
            if let Err(fault) = names::config_key(key) {
                errors.push(FieldError::invalid(text, key, fault.to_string()));
            }
            size += text.text().len() / 4 * 3;
        }
        if size > SIZE_MAX {
            errors.push(FieldError::too_long(data, SIZE_MAX));
        }
        validate_type(&root, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        root.at("type").unchanged(old, errors);
        if !value::truth(old, "immutable") {
            return;
        }
        let why = "field is immutable when `immutable` is set";
        if !value::truth(new, "immutable") {
            root.at("immutable").forbidden(errors, why);
        }
        if value::map(new, "data") != value::map(old, "data") {
            root.at("data").forbidden(errors, why);
        }
    }
}

fn validate_type(root: &At<'_>, errors: &mut FieldErrors) {
    let kind = root.at("type").text().to_owned();
    let data = root.at("data");
    let has = |key: &str| data.value().get(key).is_some();
    let demanded = DEMANDED.iter().filter(|(name, _)| *name == kind);
    for key in demanded.flat_map(|(_, keys)| keys.iter()) {
        if !has(key) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    match kind.as_str() {
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            for key in ["username", "password"] {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        "kubernetes.io/service-account-token" => {
            let annotations = root.at("metadata.annotations");
            let account = annotations.value().get(ACCOUNT).and_then(Value::as_str);
            if account.is_none_or(str::is_empty) {
                let place = format!("metadata.annotations[{ACCOUNT}]");
                errors.push(FieldError::required(place, ""));
            }
        }
        _ => {}
    }
}
