//! Where a pod may run: node selector, tolerations, affinities, topology spread.

use std::collections::BTreeSet;

use peapod_api::names;

use crate::registry::at::At;
use crate::registry::checks;
use crate::registry::field_error::FieldErrors;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks where a pod may run.
pub(super) fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    checks::labels(&spec.at("nodeSelector"), errors);
    tolerations(&spec.at("tolerations"), errors);
    let affinity = spec.at("affinity");
    node_affinity(&affinity.at("nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity.at(field), errors);
    }
    topology_spread(&spec.at("topologySpreadConstraints"), errors);
}

/// Checks tolerations.
pub fn tolerations(list: &At<'_>, errors: &mut FieldErrors) {
    for toleration in list.items() {
        let (key, operator) = (toleration.at("key"), toleration.at("operator"));
        key.follows(errors, names::qualified_name);
        if key.is_empty() && operator.text() != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid(errors, why);
        }
        let value = toleration.at("value");
        match operator.text() {
            "" | "Equal" => value.follows(errors, names::label_value),
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                operator.invalid(errors, why);
            }
            "Exists" => {}
            _ => operator.one_of(errors, &["Equal", "Exists"]),
        }
        let effect = toleration.at("effect");
        if toleration.at("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            effect.invalid(errors, why);
        }
        if !effect.is_empty() {
            effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// Checks a node selector, as affinities and volumes have it.
pub(crate) fn node_selector(selector: &At<'_>, errors: &mut FieldErrors) {
    let terms = selector.at("nodeSelectorTerms");
    if terms.is_empty() {
        terms.missing(errors, "must have at least one node selector term");
    }
    terms
        .items()
        .for_each(|term| node_selector_term(&term, errors));
}

fn node_selector_term(term: &At<'_>, errors: &mut FieldErrors) {
    for requirement in term.at("matchExpressions").items() {
        node_requirement(&requirement, errors);
        let key = requirement.at("key");
        if let Err(fault) = names::qualified_name(key.text()) {
            key.invalid(errors, fault.to_string());
        }
    }
    for requirement in term.at("matchFields").items() {
        let operator = requirement.at("operator");
        if !matches!(operator.text(), "In" | "NotIn") {
            operator.invalid(errors, "not a valid selector operator");
        }
        let values = requirement.at("values");
        if values.value().as_array().map_or(0, Vec::len) != 1 {
            let why =
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            values.missing(errors, why);
        }
        let key = requirement.at("key");
        if key.text() != "metadata.name" {
            key.invalid(errors, "not a valid field selector key");
        }
    }
}

fn node_requirement(requirement: &At<'_>, errors: &mut FieldErrors) {
    let values = requirement.at("values");
    let count = values.value().as_array().map_or(0, Vec::len);
    match requirement.at("operator").text() {
        "In" | "NotIn" if count == 0 => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            values.missing(errors, why);
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            values.forbidden(errors, why);
        }
        "Gt" | "Lt" if count != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            values.missing(errors, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => requirement
            .at("operator")
            .invalid(errors, "not a valid selector operator"),
    }
}

fn node_affinity(affinity: &At<'_>, errors: &mut FieldErrors) {
    let required = affinity.at(REQUIRED);
    if required.is_set() {
        node_selector(&required, errors);
    }
    for preferred in affinity.at(PREFERRED).items() {
        weight(&preferred.at("weight"), errors);
        node_selector_term(&preferred.at("preference"), errors);
    }
}

fn weight(weight: &At<'_>, errors: &mut FieldErrors) {
    if weight.int().is_none_or(|w| !(1..=100).contains(&w)) {
        weight.invalid(errors, "must be in the range 1-100");
    }
}

fn pod_affinity(affinity: &At<'_>, errors: &mut FieldErrors) {
    for term in affinity.at(REQUIRED).items() {
        pod_affinity_term(&term, errors);
    }
    for preferred in affinity.at(PREFERRED).items() {
        weight(&preferred.at("weight"), errors);
        pod_affinity_term(&preferred.at("podAffinityTerm"), errors);
    }
}

fn pod_affinity_term(term: &At<'_>, errors: &mut FieldErrors) {
    checks::label_selector(&term.at("labelSelector"), errors);
    checks::label_selector(&term.at("namespaceSelector"), errors);
    for namespace in term.at("namespaces").items() {
        namespace.follows(errors, names::dns_label);
    }
    let key = term.at("topologyKey");
    if key.is_empty() {
        key.missing(errors, "can not be empty");
    }
    key.follows(errors, names::qualified_name);
}

fn topology_spread(constraints: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = BTreeSet::new();
    for constraint in constraints.items() {
        let skew = constraint.at("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.invalid(errors, "must be greater than zero");
        }
        let (key, action) = (
            constraint.at("topologyKey"),
            constraint.at("whenUnsatisfiable"),
        );
        if key.is_empty() {
            key.missing(errors, "can not be empty");
        }
        action.one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        if !taken.insert((key.text().to_owned(), action.text().to_owned())) {
            constraint.duplicate(errors);
        }
        let domains = constraint.at("minDomains");
        domains.positive(errors);
        if domains.is_set() && action.text() != "DoNotSchedule" {
            let why =
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
            domains.invalid(errors, why);
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.at(field).one_of(errors, &["Honor", "Ignore"]);
        }
        checks::label_selector(&constraint.at("labelSelector"), errors);
    }
}
