//! `node.k8s.io/v1 RuntimeClass`

use peapod_api::names;
use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .conditional_update()
        .columns(vec![
            Column::name(),
            Column::path("Handler", "string", "handler"),
            Column::age(),
        ])
        .rules(RuntimeClasses)
}

struct RuntimeClasses;

impl Rules for RuntimeClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let handler = root.at("handler");
        if let Err(fault) = names::dns_label(handler.text()) {
            handler.invalid(errors, fault.to_string());
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("handler").unchanged(old, errors);
    }
}
