//! `apps/v1 DaemonSet`

use serde_json::Value;

use super::workload;
use crate::registry::cells;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

/// The declaration.
pub fn kind() -> Kind {
    let mut columns = vec![
        Column::name(),
        Column::computed("Desired", "integer", |object, _| {
            cells::number(object, "status.desiredNumberScheduled")
        }),
        Column::computed("Current", "integer", |object, _| {
            cells::number(object, "status.currentNumberScheduled")
        }),
        Column::computed("Ready", "integer", |object, _| {
            cells::number(object, "status.numberReady")
        }),
        Column::computed("Up-to-date", "integer", |object, _| {
            cells::number(object, "status.updatedNumberScheduled")
        }),
        Column::computed("Available", "integer", |object, _| {
            cells::number(object, "status.numberAvailable")
        }),
        Column::computed("Node Selector", "string", |object, _| {
            let selector = value::map(object, "spec.template.spec.nodeSelector");
            cells::or_none(cells::labels(selector))
        }),
        Column::age(),
    ];
    columns.extend(cells::workload_columns());
    Kind::namespaced("apps", "v1", "DaemonSet", "daemonsets")
        .short_names(&["ds"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .columns(columns)
        .rules(DaemonSets)
}

struct DaemonSets;

impl Rules for DaemonSets {
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "spec.template");
        let strategy = value::entry(object, "spec.updateStrategy");
        if value::text(strategy, "type") == "RollingUpdate" {
            value::set_default(strategy, "rollingUpdate.maxUnavailable", 1);
            value::set_default(strategy, "rollingUpdate.maxSurge", 0);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let counts = ["minReadySeconds", "revisionHistoryLimit"];
        workload::not_negative(&spec, &counts, errors);
        workload::validate_selector(&spec, errors);
        workload::validate_lasting_template(&spec, errors);
        let kind = spec.at("updateStrategy.type");
        kind.require_one_of(errors, &["OnDelete", "RollingUpdate"]);
        if kind.text() == "RollingUpdate" {
            let rolling = spec.at("updateStrategy.rollingUpdate");
            workload::validate_rolling(&rolling, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.selector").unchanged(old, errors);
    }
}
