//! Probes and lifecycle hooks.

use crate::registry::at::At;
use crate::registry::checks;
use crate::registry::field_error::FieldErrors;

/// Checks a probe; `field` is its name in the container.
pub(super) fn probe(probe: &At<'_>, field: &str, errors: &mut FieldErrors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.at(field).not_negative(errors);
    }
    let threshold = probe.at("successThreshold");
    if field != "readinessProbe" && threshold.int().is_some_and(|times| times != 1) {
        threshold.invalid(errors, "must be 1");
    }
    let grace = probe.at("terminationGracePeriodSeconds");
    if field == "readinessProbe" && grace.is_set() {
        grace.invalid(errors, "must not be set for readinessProbes");
    }
    grace.positive(errors);
}

/// Checks the hooks of a container.
pub(super) fn lifecycle(lifecycle: &At<'_>, errors: &mut FieldErrors) {
    for field in ["postStart", "preStop"] {
        let hook = lifecycle.at(field);
        if hook.is_set() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

/// Demands exactly one of the ways to act.
fn handler(parent: &At<'_>, ways: &[&str], errors: &mut FieldErrors) {
    let mut found = false;
    for way in ways {
        let action = parent.at(way);
        if !action.is_set() {
            continue;
        }
        if found {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *way {
            "exec" => {
                action.at("command").required(errors);
            }
            "httpGet" => http_get(&action, errors),
            "tcpSocket" => checks::port_or_name(&action.at("port"), errors),
            "grpc" => checks::port(&action.at("port"), errors),
            _ => action.at("seconds").not_negative(errors),
        }
    }
    if !found {
        parent.missing(errors, "must specify a handler type");
    }
}

fn http_get(action: &At<'_>, errors: &mut FieldErrors) {
    action.at("path").required(errors);
    checks::port_or_name(&action.at("port"), errors);
    let scheme = action.at("scheme");
    scheme.one_of(errors, &["HTTP", "HTTPS"]);
    for header in action.at("httpHeaders").items() {
        let name = header.at("name");
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.text().is_empty() || !name.text().bytes().all(token) {
            let rule = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            name.invalid(errors, rule);
        }
    }
}
