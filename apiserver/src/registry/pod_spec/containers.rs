//! Containers: names, images, ports, mounts, resources.

use std::collections::BTreeSet;

use peapod_api::names;
use peapod_api::quantity::Quantity;
use serde_json::Value;

use super::{Known, env, handlers, restart, validate_profile};
use crate::registry::at::At;
use crate::registry::checks;
use crate::registry::field_error::{FieldError, FieldErrors};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
/// Resources of containers that need no prefix.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// The part that a container has in its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Init,
    Ephemeral,
}

/// Checks all containers of a specification.
pub(super) fn validate(spec: &At<'_>, known: &Known<'_>, errors: &mut FieldErrors) {
    let containers = spec.at("containers");
    containers.required(errors);
    let mut taken = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (field, part) in [
        ("containers", Part::Main),
        ("initContainers", Part::Init),
        ("ephemeralContainers", Part::Ephemeral),
    ] {
        for container in spec.at(field).items() {
            let name = container.at("name");
            name.require_name(errors, names::dns_label);
            if !name.is_empty() && !taken.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
            validate_container(&container, part, known, errors);
            if part == Part::Main {
                claim_host_ports(&container, &mut host_ports, errors);
            }
        }
    }
}

fn validate_container(container: &At<'_>, part: Part, known: &Known<'_>, errors: &mut FieldErrors) {
    let image = container.at("image");
    if image.required(errors) && image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
    let pull = container.at("imagePullPolicy");
    pull.require_one_of(errors, PULL_POLICIES);
    let message = container.at("terminationMessagePolicy");
    message.require_one_of(errors, MESSAGE_POLICIES);
    validate_ports(&container.at("ports"), known, errors);
    env::validate(container, errors);
    validate_mounts(container, known, errors);
    validate_resources(&container.at("resources"), known, errors);
    restart::validate(container, part, known, errors);
    validate_handlers(container, part, errors);
    validate_security(&container.at("securityContext"), known, errors);
}

fn validate_ports(ports: &At<'_>, known: &Known<'_>, errors: &mut FieldErrors) {
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let name = port.at("name");
        name.follows(errors, names::port_name);
        if !name.is_empty() && !taken.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        let number = port.at("containerPort");
        match number.int().unwrap_or(0) {
            0 => number.missing(errors, ""),
            _ => checks::port(&number, errors),
        }
        let host = port.at("hostPort");
        if host.int().unwrap_or(0) != 0 {
            checks::port(&host, errors);
            if known.host_network && host.int() != number.int() {
                let why = "must match `hostPort` when `hostNetwork` is true";
                number.invalid(errors, why);
            }
        }
        port.at("protocol")
            .require_one_of(errors, checks::PROTOCOLS);
        let address = port.at("hostIP");
        if !address.is_empty() {
            checks::ip(&address, errors);
        }
    }
}

/// No two containers may have the same port of the node.
fn claim_host_ports(container: &At<'_>, taken: &mut BTreeSet<String>, errors: &mut FieldErrors) {
    for port in container.at("ports").items() {
        let host = port.at("hostPort");
        let Some(number) = host.int().filter(|number| *number != 0) else {
            continue;
        };
        let (address, protocol) = (port.at("hostIP").text(), port.at("protocol").text());
        let claim = format!("{protocol}/{address}/{number}");
        if !taken.insert(claim.clone()) {
            errors.push(FieldError::duplicate(host, claim));
        }
    }
}

fn validate_mounts(container: &At<'_>, known: &Known<'_>, errors: &mut FieldErrors) {
    let mut taken = BTreeSet::new();
    for mount in container.at("volumeMounts").items() {
        let name = mount.at("name");
        if name.required(errors) && !known.volumes.contains(name.text()) {
            errors.push(FieldError::not_found(name, name.text()));
        }
        let path = mount.at("mountPath");
        if path.required(errors) && !taken.insert(path.text().to_owned()) {
            path.invalid(errors, "must be unique");
        }
        let (sub, expression) = (mount.at("subPath"), mount.at("subPathExpr"));
        for below in [&sub, &expression] {
            relative_path(below, errors);
        }
        if !sub.is_empty() && !expression.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            expression.invalid(errors, why);
        }
        let propagation = mount.at("mountPropagation");
        propagation.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
        let privileged = container.at("securityContext.privileged").is_true();
        if propagation.text() == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            propagation.forbidden(errors, why);
        }
    }
    for device in container.at("volumeDevices").items() {
        let name = device.at("name");
        if name.required(errors) && !known.volumes.contains(name.text()) {
            errors.push(FieldError::not_found(name, name.text()));
        }
        device.at("devicePath").required(errors);
    }
}

/// Demands a path that stays below where it starts, if there is one.
pub(super) fn relative_path(path: &At<'_>, errors: &mut FieldErrors) {
    if path.text().starts_with('/') {
        path.invalid(errors, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid(errors, "must not contain '..'");
    }
}

fn validate_resources(resources: &At<'_>, known: &Known<'_>, errors: &mut FieldErrors) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    for list in [&limits, &requests] {
        for (name, quantity) in list.entries() {
            validate_resource_name(&quantity, name, errors);
            checks::quantity_not_negative(&quantity, errors);
        }
    }
    for (name, request) in requests.entries() {
        let Some(limit) = limits.value().get(name).and_then(Value::as_str) else {
            continue;
        };
        let over = match (checks::quantity(&request), limit.parse::<Quantity>()) {
            (Some(request), Ok(limit)) => request > limit,
            _ => false,
        };
        if over {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            let value = request.value().clone();
            errors.push(FieldError::invalid(requests, value, why));
        }
    }
    for claim in resources.at("claims").items() {
        let name = claim.at("name");
        if name.required(errors) && !known.claims.contains(name.text()) {
            errors.push(FieldError::not_found(name, name.text()));
        }
    }
}

fn validate_resource_name(at: &At<'_>, name: &str, errors: &mut FieldErrors) {
    if let Err(fault) = names::qualified_name(name) {
        errors.push(FieldError::invalid(at, name, fault.to_string()));
    }
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        let why = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(at, name, why));
        let why = "must be a standard resource for containers";
        errors.push(FieldError::invalid(at, name, why));
    }
}

fn validate_handlers(container: &At<'_>, part: Part, errors: &mut FieldErrors) {
    let runs_on = match part {
        Part::Main => true,
        Part::Init => container.at("restartPolicy").text() == "Always",
        Part::Ephemeral => false,
    };
    for field in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        let handler = container.at(field);
        if !handler.is_set() {
            continue;
        }
        if !runs_on {
            handler.forbidden(errors, not_here(part));
            continue;
        }
        match field {
            "lifecycle" => handlers::lifecycle(&handler, errors),
            _ => handlers::probe(&handler, field, errors),
        }
    }
}

fn not_here(part: Part) -> &'static str {
    match part {
        Part::Init => "may not be set for init containers without restartPolicy=Always",
        _ => "cannot be set for an Ephemeral Container",
    }
}

fn validate_security(context: &At<'_>, known: &Known<'_>, errors: &mut FieldErrors) {
    for field in ["runAsUser", "runAsGroup"] {
        let number = context.at(field);
        number.within(errors, 0..=i64::from(i32::MAX));
    }
    let mount = context.at("procMount");
    mount.one_of(errors, &["Default", "Unmasked"]);
    if mount.text() == "Unmasked" && !known.own_users {
        mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
    }
    validate_profile(&context.at("seccompProfile"), errors);
    let escalation = context.at("allowPrivilegeEscalation");
    if escalation.value() == &Value::Bool(false) {
        if context.at("privileged").is_true() {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid(errors, why);
        }
        let mut added = context
            .value()
            .pointer("/capabilities/add")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        if added.any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(errors, why);
        }
    }
}
