//! `scheduling.k8s.io/v1 PriorityClass`

use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

/// Highest value of a class that is not the system's own.
const USER_MAX: i64 = 1_000_000_000;
/// The system's own classes.
const SYSTEM: &[&str] = &["system-cluster-critical", "system-node-critical"];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
    )
    .short_names(&["pc"])
    .columns(vec![
        Column::name(),
        Column::path("Value", "integer", "value"),
        Column::computed("Global-Default", "boolean", |class, _| {
            value::truth(class, "globalDefault").into()
        }),
        Column::age(),
        Column::path("PreemptionPolicy", "string", "preemptionPolicy"),
    ])
    .rules(PriorityClasses)
}

struct PriorityClasses;

impl Rules for PriorityClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let (name, number) = (root.at("metadata.name"), root.at("value"));
        if name.text().starts_with("system-") {
            if !SYSTEM.contains(&name.text()) {
                let why =
                    "priority class names with 'system-' prefix are reserved for system use only";
                name.forbidden(errors, why);
            }
        } else if number.int().is_some_and(|number| number > USER_MAX) {
            let why = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            number.forbidden(errors, why);
        }
        let policies = ["Never", "PreemptLowerPriority"];
        root.at("preemptionPolicy").one_of(errors, &policies);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        if value::integer(new, "value") != value::integer(old, "value") {
            root.at("value")
                .forbidden(errors, "may not be changed in an update.");
        }
        root.at("preemptionPolicy").unchanged(old, errors);
    }
}
