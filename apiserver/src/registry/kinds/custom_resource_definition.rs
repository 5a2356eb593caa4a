//! `apiextensions.k8s.io/v1 CustomResourceDefinition`

use serde_json::{Value, json};

use crate::crd::{self, validation};
use crate::registry::{Column, FieldErrors, Kind, Rules, object_meta, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(crd::GROUP, "v1", "CustomResourceDefinition", crd::PLURAL)
        .short_names(&["crd", "crds"])
        .categories(&["api-extensions"])
        .with_generation()
        .with_status()
        .conditional_update()
        .columns(vec![
            Column::name(),
            Column::path("Created At", "date", "metadata.creationTimestamp").described(
                "CreationTimestamp is a timestamp representing the server time when this object was created.",
            ),
        ])
        .rules(Definitions)
}

struct Definitions;

impl Rules for Definitions {
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object_meta::keep(new, old);
    }

    fn defaults(&self, object: &mut Value) {
        let kind = value::text(object, "spec.names.kind").to_owned();
        if value::at(object, "spec.names").is_some() && !kind.is_empty() {
            value::set_default(object, "spec.names.singular", kind.to_lowercase());
            value::set_default(object, "spec.names.listKind", format!("{kind}List"));
        }
        if value::at(object, "spec").is_some() {
            value::set_default(object, "spec.conversion", json!({"strategy": "None"}));
        }
        if let Some(service) = value::at_mut(object, "spec.conversion.webhook.clientConfig.service")
        {
            value::set_default(service, "port", 443);
        }
        if value::at(object, "spec.preserveUnknownFields") == Some(&Value::Bool(false)) {
            value::remove(object, "spec.preserveUnknownFields");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let stored = crd::storage_version(object).to_owned();
        object["status"] = json!({
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [stored],
        });
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        let stored = crd::storage_version(new).to_owned();
        let versions = value::entry(new, "status.storedVersions");
        match versions {
            Value::Array(list) if list.iter().any(|one| *one == stored) => {}
            Value::Array(list) => list.push(stored.into()),
            other => *other = json!([stored]),
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validation::definition(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validation::update(new, old, errors);
    }

    fn validate_status(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        validation::stored_versions(new, errors);
    }

    fn mark_deleting(&self, object: &mut Value) {
        let finalizers = value::entry(object, "metadata.finalizers");
        match finalizers.as_array_mut() {
            Some(list) if list.iter().any(|one| one == crd::CLEANUP_FINALIZER) => {}
            Some(list) => list.push(crd::CLEANUP_FINALIZER.into()),
            None => *finalizers = json!([crd::CLEANUP_FINALIZER]),
        }
        let now = value::text(object, "metadata.deletionTimestamp").to_owned();
        let condition = json!({
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        });
        let conditions = value::entry(object, "status.conditions");
        match conditions.as_array_mut() {
            Some(list) => list.push(condition),
            None => *conditions = json!([condition]),
        }
    }
}
