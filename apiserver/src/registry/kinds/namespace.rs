//! `v1 Namespace`

use peapod_api::names;
use serde_json::{Value, json};

use crate::registry::{Column, Kind, Rules, Subresource, value};
use crate::rest::target::Verb;

/// The finalizer that the namespace controller removes when the namespace is empty.
const FINALIZER: &str = "kubernetes";

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster("", "v1", "Namespace", "namespaces")
        .short_names(&["ns"])
        .verbs(&[
            Verb::Create,
            Verb::Delete,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ])
        .name_rule(names::dns_label)
        .with_status()
        .subresource(Subresource::Finalize)
        .selectable(&["status.phase"])
        .columns(vec![
            Column::name(),
            Column::path("Status", "string", "status.phase")
                .described("The status of the namespace"),
            Column::age(),
        ])
        .rules(Namespaces)
}

struct Namespaces;

impl Rules for Namespaces {
    fn defaults(&self, object: &mut Value) {
        let name = value::text(object, "metadata.name").to_owned();
        if !name.is_empty() {
            let label = value::entry(object, "metadata.labels");
            if !label.is_object() {
                *label = json!({});
            }
            label["kubernetes.io/metadata.name"] = name.into();
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        value::set(object, "status", json!({"phase": "Active"}));
        let finalizers = value::entry(object, "spec.finalizers");
        match finalizers.as_array_mut() {
            Some(list) if list.iter().any(|one| one == FINALIZER) => {}
            Some(list) => list.push(FINALIZER.into()),
            None => *finalizers = json!([FINALIZER]),
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let kept = value::at(old, "spec.finalizers").cloned();
        value::set_or_remove(new, "spec.finalizers", kept);
    }

    fn mark_deleting(&self, object: &mut Value) {
        value::set(object, "status.phase", "Terminating");
    }

    fn is_held(&self, object: &Value) -> bool {
        !value::list(object, "spec.finalizers").is_empty()
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
