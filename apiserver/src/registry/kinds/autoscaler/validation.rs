//! What a HorizontalPodAutoscaler may say, in the terms of v2.

use peapod_api::names;

use super::convert::source_field;
use crate::registry::checks;
use crate::registry::{At, FieldErrors};

const SOURCES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
/// Longest window of stabilisation, and longest period of a policy, in seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// Checks the specification.
pub fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    let (least, most) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    if least.int().is_some_and(|count| count < 1) {
        least.invalid(errors, "must be greater than or equal to 1");
    }
    if most.int().unwrap_or(0) < 1 {
        most.invalid(errors, "must be greater than 0");
    }
    if least.int() > most.int() {
        most.invalid(errors, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.at("scaleTargetRef"), errors);
    for metric in spec.at("metrics").items() {
        validate_metric(&metric, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let behavior = spec.at("behavior");
        let rules = behavior.at(direction);
        if rules.is_set() {
            validate_rules(&rules, errors);
        }
    }
}

fn reference(target: &At<'_>, errors: &mut FieldErrors) {
    for field in ["kind", "name"] {
        target.at(field).require_name(errors, names::path_segment);
    }
}

fn validate_metric(metric: &At<'_>, errors: &mut FieldErrors) {
    let kind = metric.at("type");
    if kind.is_empty() {
        return kind.missing(errors, "must specify a metric source type");
    }
    kind.one_of(errors, SOURCES);
    if !SOURCES.contains(&kind.text()) {
        return;
    }
    let expected = source_field(kind.text());
    for other in SOURCES.iter().map(|kind| source_field(kind)) {
        let source = metric.at(other);
        if other != expected && source.is_set() {
            source.forbidden(errors, "must populate the given metric source only");
        }
    }
    let source = metric.at(expected);
    if !source.is_set() {
        return source.missing(
            errors,
            "must populate information for the given metric source",
        );
    }
    let target = source.at("target");
    match expected {
        "resource" | "containerResource" => {
            resource_source(&source, expected == "containerResource", errors);
        }
        _ => {
            if expected == "object" {
                reference(&source.at("describedObject"), errors);
            }
            validate_target(&target, errors);
            let name = source.at("metric.name");
            if name.is_empty() {
                name.missing(errors, "must specify a metric name");
            } else {
                name.follows(errors, names::path_segment);
            }
            checks::label_selector(&source.at("metric.selector"), errors);
            let (value, average) = (target.at("value"), target.at("averageValue"));
            if expected == "pods" && !average.is_set() {
                average.missing(errors, "must specify a positive target averageValue");
            } else if !value.is_set() && !average.is_set() {
                let why = "must set either a target value for metric or a per-pod target";
                average.missing(errors, why);
            }
        }
    }
}

fn resource_source(source: &At<'_>, of_container: bool, errors: &mut FieldErrors) {
    let name = source.at("name");
    if name.is_empty() {
        name.missing(errors, "must specify a resource name");
    }
    let container = source.at("container");
    if of_container && container.is_empty() {
        container.missing(errors, "must specify a container");
    }
    let target = source.at("target");
    validate_target(&target, errors);
    let (share, amount) = (target.at("averageUtilization"), target.at("averageValue"));
    match (share.is_set(), amount.is_set()) {
        (false, false) => {
            let why = "must set either a target raw value or a target utilization";
            share.missing(errors, why);
        }
        (true, true) => {
            let why = "may not set both a target raw value and a target utilization";
            amount.forbidden(errors, why);
        }
        _ => {}
    }
}

fn validate_target(target: &At<'_>, errors: &mut FieldErrors) {
    let kind = target.at("type");
    if kind.is_empty() {
        kind.missing(errors, "must specify a metric target type");
    } else if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        kind.invalid(errors, why);
    }
    for field in ["value", "averageValue"] {
        let amount = target.at(field);
        let positive = |q: peapod_api::quantity::Quantity| !q.is_negative() && !q.is_zero();
        if checks::quantity(&amount).is_some_and(|quantity| !positive(quantity)) {
            amount.invalid(errors, "must be positive");
        }
    }
    target.at("averageUtilization").positive(errors);
}

fn validate_rules(rules: &At<'_>, errors: &mut FieldErrors) {
    let window = rules.at("stabilizationWindowSeconds");
    window.not_negative(errors);
    if window.int().is_some_and(|seconds| seconds > WINDOW_MAX) {
        window.invalid(
            errors,
            format!("must be less than or equal to {WINDOW_MAX}"),
        );
    }
    rules
        .at("selectPolicy")
        .one_of(errors, &["Disabled", "Max", "Min"]);
    let policies = rules.at("policies");
    if policies.is_empty() {
        policies.missing(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        policy.at("type").one_of(errors, &["Percent", "Pods"]);
        policy.at("value").positive(errors);
        let period = policy.at("periodSeconds");
        period.positive(errors);
        if period.int().is_some_and(|seconds| seconds > PERIOD_MAX) {
            period.invalid(
                errors,
                format!("must be less than or equal to {PERIOD_MAX}"),
            );
        }
    }
}
