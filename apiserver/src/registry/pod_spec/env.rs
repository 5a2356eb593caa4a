//! Environment variables and where they come from.

use peapod_api::names;

use crate::registry::at::At;
use crate::registry::field_error::FieldErrors;

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const NAME_RULE: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// Checks `env` and `envFrom` of a container.
pub(super) fn validate(container: &At<'_>, errors: &mut FieldErrors) {
    for variable in container.at("env").items() {
        let name = variable.at("name");
        if name.required(errors) && !is_name(name.text()) {
            name.invalid(errors, NAME_RULE);
        }
        let from = variable.at("valueFrom");
        if from.is_set() {
            validate_source(&variable, &from, errors);
        }
    }
    for source in container.at("envFrom").items() {
        let prefix = source.at("prefix");
        if !prefix.is_empty() && !is_name(prefix.text()) {
            prefix.invalid(errors, NAME_RULE);
        }
        let (map, secret) = (source.at("configMapRef"), source.at("secretRef"));
        match (map.is_set(), secret.is_set()) {
            (false, false) => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                source.invalid(errors, why);
            }
            (true, true) => {
                let why = "may not have more than one field specified at a time";
                source.invalid(errors, why);
            }
            (true, false) => map.at("name").require_name(errors, names::dns_subdomain),
            (false, true) => secret.at("name").require_name(errors, names::dns_subdomain),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn validate_source(variable: &At<'_>, from: &At<'_>, errors: &mut FieldErrors) {
    let given = SOURCES.iter().filter(|source| from.at(source).is_set());
    let given = given.count();
    if given == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        from.invalid(errors, why);
    } else if !variable.at("value").is_empty() {
        let why = "may not be specified when `value` is not empty";
        from.invalid(errors, why);
    } else if given > 1 {
        let why = "may not have more than one field specified at a time";
        from.invalid(errors, why);
    }
    field_reference(&from.at("fieldRef"), FIELDS, errors);
    resource_reference(&from.at("resourceFieldRef"), errors);
    for field in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.at(field);
        if reference.is_set() {
            reference.at("name").required(errors);
            key(&reference.at("key"), errors);
        }
    }
}

/// Demands a key of a ConfigMap or Secret.
pub(super) fn key(key: &At<'_>, errors: &mut FieldErrors) {
    key.require_name(errors, names::config_key);
}

/// Checks a reference to a field of the pod, if there is one.
pub(super) fn field_reference(reference: &At<'_>, known: &[&str], errors: &mut FieldErrors) {
    if !reference.is_set() {
        return;
    }
    reference.at("apiVersion").required(errors);
    let path = reference.at("fieldPath");
    if !path.required(errors) {
        return;
    }
    let subscripted = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|start| path.text().starts_with(start) && path.text().ends_with("']"));
    if !subscripted {
        path.one_of(errors, known);
    }
}

/// Checks a reference to a resource of a container, if there is one.
pub(super) fn resource_reference(reference: &At<'_>, errors: &mut FieldErrors) {
    if !reference.is_set() {
        return;
    }
    let resource = reference.at("resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|start| resource.text().starts_with(start));
    if resource.required(errors) && !huge {
        resource.one_of(errors, RESOURCES);
    }
}
