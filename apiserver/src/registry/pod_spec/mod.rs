//! The specification of pods, wherever it stands: in a Pod or in a template. Its defaults, and
//! its validation in upstream's words.

mod containers;
mod defaults;
mod env;
mod handlers;
mod placement;
mod restart;
mod volumes;
mod whole;

use std::collections::BTreeSet;

use peapod_api::names;
use serde_json::Value;

use super::at::At;
use super::checks;
use super::field_error::FieldErrors;
use super::value;

pub use defaults::{default_pod, default_spec};
pub(crate) use placement::node_selector;
pub use placement::tolerations;
pub(crate) use volumes::host_path;

/// What the parts of a specification must know of each other.
pub(super) struct Known<'a> {
    /// Names of the volumes.
    volumes: BTreeSet<&'a str>,
    /// Names of the claims for devices.
    claims: BTreeSet<&'a str>,
    host_network: bool,
    /// IDs in the pod are others on the host.
    own_users: bool,
    restart_policy: &'a str,
}

/// The containers of all kinds of a pod's specification, with the field each stands in.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|field| spec.get(field)?.as_array())
        .flatten()
}

/// Checks a template: its metadata and its specification.
pub fn validate_template(template: &At<'_>, errors: &mut FieldErrors) {
    validate_template_among(template, BTreeSet::new(), errors);
}

/// Checks a template whose pods have volumes of these names beside those that it lists.
pub fn validate_template_among<'a>(
    template: &At<'a>,
    volumes: BTreeSet<&'a str>,
    errors: &mut FieldErrors,
) {
    checks::template_metadata(&template.at("metadata"), errors);
    let spec = template.at("spec");
    validate_among(&spec, volumes, errors);
    let ephemeral = spec.at("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// Checks a specification.
pub fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    validate_among(spec, BTreeSet::new(), errors);
}

fn validate_among<'a>(spec: &At<'a>, others: BTreeSet<&'a str>, errors: &mut FieldErrors) {
    let volumes = spec.at("volumes");
    let known = Known {
        volumes: &names_in(spec, "volumes") | &others,
        claims: names_in(spec, "resourceClaims"),
        host_network: spec.at("hostNetwork").is_true(),
        own_users: spec.at("hostUsers").value() == &Value::Bool(false),
        restart_policy: value::text(spec.value(), "restartPolicy"),
    };
    volumes::validate(&volumes, errors);
    containers::validate(spec, &known, errors);
    whole::validate(spec, errors);
    spec.at("restartPolicy")
        .require_one_of(errors, &["Always", "OnFailure", "Never"]);
    validate_dns(spec, errors);
    validate_identity(spec, errors);
    validate_limits(spec, errors);
    validate_security(spec, errors);
    placement::validate(spec, errors);
}

/// The names of the items of a list.
fn names_in<'a>(spec: &At<'a>, field: &str) -> BTreeSet<&'a str> {
    let items = value::list(spec.value(), field).iter();
    items.map(|item| value::text(item, "name")).collect()
}

fn validate_dns(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.at("dnsPolicy");
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    policy.require_one_of(errors, &policies);
    let config = spec.at("dnsConfig");
    let servers = config.at("nameservers");
    if policy.text() == "None" {
        if !config.is_set() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            config.missing(errors, why);
        } else if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            servers.missing(errors, why);
        }
    }
    at_most(&servers, 3, "must not have more than 3 nameservers", errors);
    servers
        .items()
        .for_each(|server| checks::ip(&server, errors));
    let searches = config.at("searches");
    at_most(
        &searches,
        32,
        "must not have more than 32 search paths",
        errors,
    );
    for option in config.at("options").items() {
        option.at("name").required(errors);
    }
    for alias in spec.at("hostAliases").items() {
        checks::ip(&alias.at("ip"), errors);
        for name in alias.at("hostnames").items() {
            name.follows(errors, names::dns_subdomain);
        }
    }
}

fn at_most(list: &At<'_>, max: usize, why: &str, errors: &mut FieldErrors) {
    if list.value().as_array().map_or(0, Vec::len) > max {
        list.invalid(errors, why);
    }
}

fn validate_identity(spec: &At<'_>, errors: &mut FieldErrors) {
    for field in ["hostname", "subdomain"] {
        spec.at(field).follows(errors, names::dns_label);
    }
    for field in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
    ] {
        spec.at(field).follows(errors, names::dns_subdomain);
    }
    let policies = ["Never", "PreemptLowerPriority"];
    spec.at("preemptionPolicy").one_of(errors, &policies);
    if spec.at("os").is_set() {
        spec.at("os.name")
            .require_one_of(errors, &["linux", "windows"]);
    }
    let mut gates = BTreeSet::new();
    for gate in spec.at("schedulingGates").items() {
        let name = gate.at("name");
        name.require_name(errors, names::qualified_name);
        if !gates.insert(name.text().to_owned()) {
            gate.duplicate(errors);
        }
    }
    for gate in spec.at("readinessGates").items() {
        let condition = gate.at("conditionType");
        if let Err(fault) = names::qualified_name(condition.text()) {
            condition.invalid(errors, fault.to_string());
        }
    }
}

fn validate_limits(spec: &At<'_>, errors: &mut FieldErrors) {
    spec.at("activeDeadlineSeconds")
        .within(errors, 1..=i64::from(i32::MAX));
    for (_, quantity) in spec.at("overhead").entries() {
        checks::quantity_not_negative(&quantity, errors);
    }
}

fn validate_security(spec: &At<'_>, errors: &mut FieldErrors) {
    let context = spec.at("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        context.at(field).within(errors, 0..=i64::from(i32::MAX));
    }
    for group in context.at("supplementalGroups").items() {
        group.within(errors, 0..=i64::from(i32::MAX));
    }
    context
        .at("fsGroupChangePolicy")
        .one_of(errors, &["Always", "OnRootMismatch"]);
    let mut seen = BTreeSet::new();
    for sysctl in context.at("sysctls").items() {
        let name = sysctl.at("name");
        if !name.required(errors) {
            continue;
        }
        if !is_sysctl_name(name.text()) {
            let why =
                format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_FORM}");
            name.invalid(errors, why);
        } else if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
    }
    validate_profile(&context.at("seccompProfile"), errors);
    if spec.at("hostUsers").value() == &Value::Bool(false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec.at(field).is_true() {
                let why = "when `hostUsers` is false";
                spec.at(field).forbidden(errors, why);
            }
        }
    }
    if spec.at("shareProcessNamespace").is_true() && spec.at("hostPID").is_true() {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        spec.at("shareProcessNamespace").invalid(errors, why);
    }
}

/// Longest name of a sysctl, in bytes.
const SYSCTL_MAX: usize = 253;
/// What a name of a sysctl looks like: parts between dots or slashes.
const SYSCTL_FORM: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.into_iter().all(|end| end.is_some_and(|&b| plain(b)))
            && bytes.iter().all(|&b| plain(b) || b == b'-' || b == b'_')
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(is_part)
}

/// Checks a seccomp profile, if there is one.
fn validate_profile(profile: &At<'_>, errors: &mut FieldErrors) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.at("type");
    kind.require_one_of(errors, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let file = profile.at("localhostProfile");
    match kind.text() {
        "Localhost" if file.is_empty() => {
            file.missing(errors, "must be set when seccomp type is Localhost");
        }
        "Localhost" => {}
        _ if file.is_set() => {
            let why = "can only be set when seccomp type is Localhost";
            file.invalid(errors, why);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sysctls() {
        for name in [
            "kernel.shmmax",
            "net/ipv4/conf.d/x",
            "safe-and-unsafe",
            "a.b_c.d1",
        ] {
            assert!(is_sysctl_name(name), "{name}");
        }
        for name in ["", "foo-", "bar..", ".a", "a.", "A.b", "a b", "a._b"] {
            assert!(!is_sysctl_name(name), "{name}");
        }
        assert!(!is_sysctl_name(&"a".repeat(254)));
    }
}
