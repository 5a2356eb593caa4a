//! `policy/v1 PodDisruptionBudget`

use serde_json::Value;

use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    )
    .short_names(&["pdb"])
    .with_generation()
    .with_status()
    .conditional_update()
    .columns(vec![
        Column::name(),
        Column::computed("Min Available", "string", |budget, _| {
            bound(budget, "minAvailable")
        }),
        Column::computed("Max Unavailable", "string", |budget, _| {
            bound(budget, "maxUnavailable")
        }),
        Column::computed("Allowed Disruptions", "integer", |budget, _| {
            cells::number(budget, "status.disruptionsAllowed")
        }),
        Column::age(),
    ])
    .rules(PodDisruptionBudgets)
}

fn bound(budget: &Value, field: &str) -> Value {
    match value::at(&budget["spec"], field) {
        Some(Value::String(text)) => text.clone().into(),
        Some(number) => number.to_string().into(),
        None => "N/A".into(),
    }
}

struct PodDisruptionBudgets;

impl Rules for PodDisruptionBudgets {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let bounds = [spec.at("minAvailable"), spec.at("maxUnavailable")];
        if bounds.iter().all(At::is_set) {
            spec.invalid(errors, "minAvailable and maxUnavailable cannot be both set");
        }
        for bound in &bounds {
            checks::number_or_percent(bound, errors);
            if checks::percent(bound.value()).is_some_and(|percent| percent > 100) {
                bound.invalid(errors, "must not be greater than 100%");
            }
        }
        checks::label_selector(&spec.at("selector"), errors);
        let policy = spec.at("unhealthyPodEvictionPolicy");
        policy.one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}
