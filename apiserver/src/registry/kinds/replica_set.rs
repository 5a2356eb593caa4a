//! `apps/v1 ReplicaSet`

use serde_json::Value;

use super::workload;
use crate::registry::cells;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, ScalePaths, Subresource, value};

/// The declaration.
pub fn kind() -> Kind {
    let mut columns = vec![
        Column::name(),
        Column::computed("Desired", "integer", |object, _| {
            cells::number(object, "spec.replicas")
        }),
        Column::computed("Current", "integer", |object, _| {
            cells::number(object, "status.replicas")
        }),
        Column::computed("Ready", "integer", |object, _| {
            cells::number(object, "status.readyReplicas")
        }),
        Column::age(),
    ];
    columns.extend(cells::workload_columns());
    Kind::namespaced("apps", "v1", "ReplicaSet", "replicasets")
        .short_names(&["rs"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Scale(ScalePaths::default()))
        .selectable(&["status.replicas"])
        .zero("status.replicas", "0")
        .columns(columns)
        .rules(ReplicaSets)
}

struct ReplicaSets;

impl Rules for ReplicaSets {
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "spec.template");
    }

    fn prepare_create(&self, object: &mut Value) {
        value::set(object, "status", serde_json::json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        workload::not_negative(&spec, &["replicas", "minReadySeconds"], errors);
        workload::validate_selector(&spec, errors);
        workload::validate_lasting_template(&spec, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.selector").unchanged(old, errors);
    }

    fn validate_status(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let status = root.at("status");
        let counts = [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ];
        workload::not_negative(&status, &counts, errors);
        let (all, ready) = (status.at("replicas"), status.at("readyReplicas"));
        if ready.int() > Some(all.int().unwrap_or(0)) {
            ready.invalid(errors, "cannot be greater than status.replicas");
        }
    }
}
