//! `apps/v1 Deployment`

use serde_json::Value;

use super::workload;
use crate::registry::cells;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, ScalePaths, Subresource, value};

/// The declaration.
pub fn kind() -> Kind {
    let mut columns = vec![
        Column::name(),
        Column::computed("Ready", "string", |object, _| {
            let count = |path| value::integer(object, path).unwrap_or(0);
            let (ready, wanted) = (count("status.readyReplicas"), count("spec.replicas"));
            format!("{ready}/{wanted}").into()
        }),
        Column::computed("Up-to-date", "string", |object, _| {
            cells::number(object, "status.updatedReplicas")
        }),
        Column::computed("Available", "string", |object, _| {
            cells::number(object, "status.availableReplicas")
        }),
        Column::age(),
    ];
    columns.extend(cells::workload_columns());
    Kind::namespaced("apps", "v1", "Deployment", "deployments")
        .short_names(&["deploy"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Scale(ScalePaths::default()))
        .columns(columns)
        .rules(Deployments)
}

struct Deployments;

impl Rules for Deployments {
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "spec.template");
        let strategy = value::entry(object, "spec.strategy");
        if value::text(strategy, "type") == "RollingUpdate" {
            for bound in ["maxUnavailable", "maxSurge"] {
                value::set_default(strategy, &format!("rollingUpdate.{bound}"), "25%");
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let counts = [
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ];
        workload::not_negative(&spec, &counts, errors);
        workload::validate_selector(&spec, errors);
        workload::validate_lasting_template(&spec, errors);
        validate_strategy(&spec.at("strategy"), errors);
        let deadline = spec.at("progressDeadlineSeconds");
        let ready = spec.at("minReadySeconds").int().unwrap_or(0);
        if deadline.int().is_some_and(|deadline| deadline <= ready) {
            deadline.invalid(errors, "must be greater than minReadySeconds");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Annotations are copied to the ReplicaSets, so that a change of them is work to do.
        let annotations = |object: &Value| value::at(object, "metadata.annotations").cloned();
        let generation = |object: &Value| value::integer(object, "metadata.generation");
        let counted = generation(new) != generation(old);
        if !counted && annotations(new) != annotations(old) {
            let next = generation(old).unwrap_or(0) + 1;
            value::set(new, "metadata.generation", next);
        }
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let labels = value::at(old, "metadata.labels").cloned();
        value::set_or_remove(new, "metadata.labels", labels);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.selector").unchanged(old, errors);
    }

    fn validate_status(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let counts = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ];
        workload::not_negative(&root.at("status"), &counts, errors);
    }
}

fn validate_strategy(strategy: &At<'_>, errors: &mut FieldErrors) {
    let kind = strategy.at("type");
    kind.one_of(errors, &["Recreate", "RollingUpdate"]);
    let rolling = strategy.at("rollingUpdate");
    match kind.text() {
        "Recreate" if rolling.is_set() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            rolling.forbidden(errors, why);
        }
        "RollingUpdate" => workload::validate_rolling(&rolling, errors),
        _ => {}
    }
}
