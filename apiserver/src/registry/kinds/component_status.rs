//! `v1 ComponentStatus` and `v1 Binding`: what is left of the API's first days.
//!
//! Statuses come from [`crate::components`]. A Binding is created as the subresource of its
//! pod is.

use serde_json::Value;

use crate::registry::{Column, Kind, value};
use crate::rest::target::Verb;

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![component_status(), binding()]
}

fn component_status() -> Kind {
    fn healthy(component: &Value, field: &str) -> Value {
        let all = value::list(component, "conditions").iter();
        let mut healthy = all.filter(|one| value::text(one, "type") == "Healthy");
        let found = healthy.next().map(|one| value::text(one, field));
        found.unwrap_or_default().into()
    }
    Kind::cluster("", "v1", "ComponentStatus", "componentstatuses")
        .short_names(&["cs"])
        .deprecated("v1.19+")
        .verbs(&[Verb::Get, Verb::List])
        .columns(vec![
            Column::name(),
            Column::computed("Status", "string", |one, _| match healthy(one, "status") {
                Value::String(status) if status == "True" => "Healthy".into(),
                Value::String(status) if status == "False" => "Unhealthy".into(),
                _ => "Unknown".into(),
            }),
            Column::computed("Message", "string", |one, _| healthy(one, "message")),
            Column::computed("Error", "string", |one, _| healthy(one, "error")),
        ])
}

fn binding() -> Kind {
    Kind::namespaced("", "v1", "Binding", "bindings")
        .verbs(&[Verb::Create])
        .ephemeral()
}
