//! `apps/v1 StatefulSet`

use serde_json::{Value, json};

use super::workload;
use crate::registry::cells;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, ScalePaths, Subresource, value};

/// What an update may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const UPDATE_RULE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The declaration.
pub fn kind() -> Kind {
    let mut columns = vec![
        Column::name(),
        Column::computed("Ready", "string", |object, _| {
            let count = |path| value::integer(object, path).unwrap_or(0);
            let (ready, wanted) = (count("status.readyReplicas"), count("spec.replicas"));
            format!("{ready}/{wanted}").into()
        }),
        Column::age(),
    ];
    columns.extend(cells::template_columns());
    Kind::namespaced("apps", "v1", "StatefulSet", "statefulsets")
        .short_names(&["sts"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Scale(ScalePaths::default()))
        .columns(columns)
        .rules(StatefulSets)
}

struct StatefulSets;

impl Rules for StatefulSets {
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "spec.template");
        let strategy = value::entry(object, "spec.updateStrategy");
        if value::text(strategy, "type") == "RollingUpdate" {
            value::set_default(strategy, "rollingUpdate.partition", 0);
        }
        let claims = object["spec"].get_mut("volumeClaimTemplates");
        for claim in claims.and_then(Value::as_array_mut).into_iter().flatten() {
            value::set_default(claim, "apiVersion", "v1");
            value::set_default(claim, "kind", "PersistentVolumeClaim");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let counts = ["replicas", "minReadySeconds", "revisionHistoryLimit"];
        workload::not_negative(&spec, &counts, errors);
        workload::validate_selector(&spec, errors);
        workload::validate_lasting_template(&spec, errors);
        let management = spec.at("podManagementPolicy");
        management.require_one_of(errors, &["OrderedReady", "Parallel"]);
        let kind = spec.at("updateStrategy.type");
        kind.require_one_of(errors, &["OnDelete", "RollingUpdate"]);
        let rolling = spec.at("updateStrategy.rollingUpdate");
        if kind.text() == "OnDelete" && rolling.is_set() {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            rolling.invalid(errors, why);
        }
        rolling.at("partition").not_negative(errors);
        spec.at("ordinals.start").not_negative(errors);
        for field in ["whenDeleted", "whenScaled"] {
            let policy = spec.at("persistentVolumeClaimRetentionPolicy");
            policy.at(field).one_of(errors, &["Retain", "Delete"]);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let fixed = |object: &Value| {
            let mut spec = object["spec"].clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.retain(|field, _| !CHANGEABLE.contains(&field.as_str()));
            }
            spec
        };
        if fixed(new) != fixed(old) {
            At::root(new).at("spec").forbidden(errors, UPDATE_RULE);
        }
    }
}
