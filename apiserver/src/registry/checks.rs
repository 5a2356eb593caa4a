//! Checks that several kinds share: selectors, labels, ports, addresses, quantities, templates.

use std::net::IpAddr;

use peapod_api::names::{self, NameError};
use peapod_api::quantity::Quantity;
use serde_json::Value;

use super::at::At;
use super::field_error::{FieldError, FieldErrors};

/// Transport protocols.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Checks labels.
pub fn labels(at: &At<'_>, errors: &mut FieldErrors) {
    for (key, value) in at.entries() {
        errors_of_key(at, key, names::qualified_name(key), errors);
        if let Err(fault) = names::label_value(value.text()) {
            errors.push(FieldError::invalid(at, value.text(), fault.to_string()));
        }
    }
}

fn errors_of_key(at: &At<'_>, key: &str, outcome: Result<(), NameError>, errors: &mut FieldErrors) {
    if let Err(fault) = outcome {
        errors.push(FieldError::invalid(at, key, fault.to_string()));
    }
}

/// Checks the labels and annotations of a template's metadata.
pub fn template_metadata(at: &At<'_>, errors: &mut FieldErrors) {
    labels(&at.at("labels"), errors);
    let annotations = at.at("annotations");
    for (key, _) in annotations.entries() {
        let outcome = names::qualified_name(&key.to_lowercase());
        errors_of_key(&annotations, key, outcome, errors);
    }
}

/// Checks a label selector.
pub fn label_selector(at: &At<'_>, errors: &mut FieldErrors) {
    labels(&at.at("matchLabels"), errors);
    for requirement in at.at("matchExpressions").items() {
        let values = requirement.at("values");
        match requirement.at("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                values.missing(
                    errors,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => values.forbidden(
                errors,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Exists" | "DoesNotExist" => {}
            _ => requirement
                .at("operator")
                .invalid(errors, "not a valid selector operator"),
        }
        let key = requirement.at("key");
        if let Err(fault) = names::qualified_name(key.text()) {
            key.invalid(errors, fault.to_string());
        }
        for value in values.items() {
            value.follows(errors, names::label_value);
        }
    }
}

/// Whether a label selector, in wire form, matches these labels. One that cannot be read
/// matches nothing.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    use peapod_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    let selector: Option<LabelSelector> = serde_json::from_value(selector.clone()).ok();
    let selector = selector
        .as_ref()
        .map(peapod_api::selector::Selector::from_label_selector);
    match selector {
        Some(Ok(selector)) => selector.matches_with(|key| labels.get(key).and_then(Value::as_str)),
        _ => false,
    }
}

/// Demands a port number, if there is one.
pub fn port(at: &At<'_>, errors: &mut FieldErrors) {
    at.within(errors, 1..=65535);
}

/// Demands a port: a number, or the name of one.
pub fn port_or_name(at: &At<'_>, errors: &mut FieldErrors) {
    match at.value() {
        Value::String(_) => {
            if let Err(fault) = names::port_name(at.text()) {
                at.invalid(errors, fault.to_string());
            }
        }
        Value::Number(_) => port(at, errors),
        _ => at.missing(errors, ""),
    }
}

/// Reads an address as the API accepts it.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// Demands an address.
pub fn ip(at: &At<'_>, errors: &mut FieldErrors) {
    if parse_ip(at.text()).is_none() {
        at.invalid(
            errors,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

/// Demands a block of addresses.
pub fn cidr(at: &At<'_>, errors: &mut FieldErrors) {
    if at.text().parse::<ipnet::IpNet>().is_err() {
        at.invalid(
            errors,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
    }
}

/// The quantity at a place, if there is one.
pub fn quantity(at: &At<'_>) -> Option<Quantity> {
    at.value().as_str()?.parse().ok()
}

/// Demands a quantity that is not negative, if there is one.
pub fn quantity_not_negative(at: &At<'_>, errors: &mut FieldErrors) {
    if quantity(at).is_some_and(Quantity::is_negative) {
        at.invalid(errors, "must be greater than or equal to 0");
    }
}

/// Demands a number that is not negative or a percentage, if there is something.
pub fn number_or_percent(at: &At<'_>, errors: &mut FieldErrors) {
    let Value::String(text) = at.value() else {
        return at.not_negative(errors);
    };
    let digits = text.strip_suffix('%').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let rule = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        at.invalid(errors, rule);
    }
}

/// Whether a number or percentage is nothing.
pub fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0)
        || value
            .as_str()
            .is_some_and(|text| text.trim_start_matches('0') == "%")
}

/// The percentage, if it is one.
pub fn percent(value: &Value) -> Option<u64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}
