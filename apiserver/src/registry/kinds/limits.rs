//! `v1 LimitRange` and `v1 ResourceQuota`: bounds of a namespace.

use std::collections::BTreeSet;

use peapod_api::names;
use peapod_api::quantity::Quantity;
use peapod_api::quota;
use serde_json::Value;

use crate::registry::checks;
use crate::registry::{At, Column, FieldError, FieldErrors, Kind, Rules, value};

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![limit_range(), resource_quota()]
}

fn limit_range() -> Kind {
    Kind::namespaced("", "v1", "LimitRange", "limitranges")
        .short_names(&["limits"])
        .create_on_update()
        .columns(vec![
            Column::name(),
            Column::path("Created At", "date", "metadata.creationTimestamp"),
        ])
        .rules(LimitRanges)
}

struct LimitRanges;

impl Rules for LimitRanges {
    /// What has a maximum and no default gets the maximum, and requests what is the default.
    fn defaults(&self, object: &mut Value) {
        let limits = value::entry(object, "spec.limits").as_array_mut();
        for limit in limits.into_iter().flatten() {
            if value::text(limit, "type") != "Container" {
                continue;
            }
            for (to, from) in [
                ("default", "max"),
                ("defaultRequest", "default"),
                ("defaultRequest", "min"),
            ] {
                let given = value::map(limit, from).cloned().unwrap_or_default();
                for (resource, quantity) in given {
                    let place = value::entry(limit, to);
                    if place.get(&resource).is_none() {
                        if !place.is_object() {
                            *place = Value::Object(Default::default());
                        }
                        place[resource] = quantity;
                    }
                }
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let mut taken = BTreeSet::new();
        for limit in root.at("spec.limits").items() {
            let kind = limit.at("type");
            kind.require_name(errors, names::qualified_name);
            if !taken.insert(kind.text().to_owned()) {
                kind.duplicate(errors);
            }
            for [low, high] in [
                ["min", "max"],
                ["min", "defaultRequest"],
                ["min", "default"],
                ["defaultRequest", "default"],
                ["default", "max"],
            ] {
                not_above(&limit, low, high, errors);
            }
        }
    }
}

fn not_above(limit: &At<'_>, low: &str, high: &str, errors: &mut FieldErrors) {
    let (lows, highs) = (limit.at(low), limit.at(high));
    for (resource, small) in lows.entries() {
        let Some(large) = highs.value().get(resource).and_then(Value::as_str) else {
            continue;
        };
        let above = match (checks::quantity(&small), large.parse::<Quantity>()) {
            (Some(small), Ok(large)) => small > large,
            _ => false,
        };
        if above {
            let text = small.text();
            let why = format!("{low} value {text} is greater than {high} value {large}");
            errors.push(FieldError::invalid(small, text, why));
        }
    }
}

fn resource_quota() -> Kind {
    Kind::namespaced("", "v1", "ResourceQuota", "resourcequotas")
        .short_names(&["quota"])
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Request", "string", |quota, _| used(quota, false).into()),
            Column::computed("Limit", "string", |quota, _| used(quota, true).into()),
            Column::age(),
        ])
        .rules(ResourceQuotas)
}

/// What is used of what may be, as `pods: 1/10`.
fn used(quota: &Value, limits: bool) -> String {
    let hard = value::map(quota, "status.hard").into_iter().flatten();
    let of_kind = hard.filter(|(name, _)| name.starts_with("limits.") == limits);
    let parts = of_kind.map(|(name, hard)| {
        let used = value::map(quota, "status.used").and_then(|used| used.get(name));
        let used = used.and_then(Value::as_str).unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    });
    parts.collect::<Vec<_>>().join(", ")
}

struct ResourceQuotas;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl Rules for ResourceQuotas {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        for (name, quantity) in spec.at("hard").entries() {
            if let Err(fault) = names::qualified_name(name) {
                errors.push(FieldError::invalid(quantity, name, fault.to_string()));
            } else if !name.contains('/') && quota::resource_of(name).is_none() {
                let why = "must be a standard resource for quota";
                errors.push(FieldError::invalid(quantity, name, why));
            }
            checks::quantity_not_negative(&quantity, errors);
        }
        for scope in spec.at("scopes").items() {
            scope.one_of(errors, SCOPES);
        }
        let selector = spec.at("scopeSelector");
        for one in selector.at("matchExpressions").items() {
            one.at("scopeName").require_one_of(errors, SCOPES);
            let (operator, values) = (one.at("operator"), one.at("values"));
            match operator.text() {
                "In" | "NotIn" if values.is_empty() => {
                    let why = "must be atleast one value when `operator` is 'In' or 'NotIn' for scope selector";
                    values.missing(errors, why);
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                    values.invalid(errors, why);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                _ => operator.invalid(errors, "not a valid selector operator"),
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["spec.scopes", "spec.scopeSelector"] {
            root.at(field).unchanged(old, errors);
        }
    }
}
