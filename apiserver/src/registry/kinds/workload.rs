//! What the kinds of `apps/v1` and `batch/v1` share: a template, a selector, counts.

use serde_json::Value;

use crate::registry::checks;
use crate::registry::pod_spec;
use crate::registry::{At, FieldError, FieldErrors, value};

/// Fills the defaults of the template's specification.
pub(super) fn default_template(object: &mut Value, path: &str) {
    if let Some(spec) = value::at_mut(object, path).and_then(|t| t.get_mut("spec")) {
        pod_spec::default_spec(spec);
    }
}

/// Checks the selector and that the template is selected by it.
pub(super) fn validate_selector(spec: &At<'_>, errors: &mut FieldErrors) {
    let selector = spec.at("selector");
    if !selector.is_set() {
        return selector.missing(errors, "");
    }
    checks::label_selector(&selector, errors);
    let empty = |field: &str| value::at(selector.value(), field).is_none_or(is_empty);
    if empty("matchLabels") && empty("matchExpressions") {
        return selector.invalid(errors, "empty selector is invalid for deployment");
    }
    let labels = spec.at("template.metadata.labels");
    if !checks::selects(selector.value(), labels.value()) {
        let why = "`selector` does not match template `labels`";
        let shown = match labels.value() {
            Value::Null => Value::Object(Default::default()),
            labels => labels.clone(),
        };
        errors.push(FieldError::invalid(labels, shown, why));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        other => other.is_null(),
    }
}

/// Checks a template whose pods run until they are replaced.
pub(super) fn validate_lasting_template(spec: &At<'_>, errors: &mut FieldErrors) {
    let template = spec.at("template");
    // Of StatefulSets: each pod gets a volume of each.
    let claims = value::list(spec.value(), "volumeClaimTemplates").iter();
    let claims = claims.map(|claim| value::text(claim, "metadata.name"));
    pod_spec::validate_template_among(&template, claims.collect(), errors);
    let policy = template.at("spec.restartPolicy");
    if !policy.is_empty() {
        policy.one_of(errors, &["Always"]);
    }
    let deadline = template.at("spec.activeDeadlineSeconds");
    if deadline.is_set() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        deadline.forbidden(errors, why);
    }
}

/// Demands that counts and delays are not negative.
pub(super) fn not_negative(object: &At<'_>, fields: &[&str], errors: &mut FieldErrors) {
    for field in fields {
        object.at(field).not_negative(errors);
    }
}

/// Checks a pair of surge and unavailability, of which one must let a rollout move.
pub(super) fn validate_rolling(rolling: &At<'_>, errors: &mut FieldErrors) {
    let (surge, unavailable) = (rolling.at("maxSurge"), rolling.at("maxUnavailable"));
    for bound in [&unavailable, &surge] {
        checks::number_or_percent(bound, errors);
    }
    if checks::percent(unavailable.value()).is_some_and(|percent| percent > 100) {
        unavailable.invalid(errors, "must not be greater than 100%");
    }
    if checks::is_zero(unavailable.value()) && checks::is_zero(surge.value()) {
        unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
    }
}
