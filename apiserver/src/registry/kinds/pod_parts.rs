//! What `/resize` and `/ephemeralcontainers` of a pod may change.

use serde_json::Value;

use super::pod::qos_class;
use crate::registry::{At, FieldErrors, value};

/// The resources of a running container may change in amount, not in kind.
pub(super) fn validate_resize(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let root = At::root(new);
    if matches!(value::text(old, "status.phase"), "Succeeded" | "Failed") {
        return root.forbidden(errors, "Pod must be running to be resized");
    }
    if qos_class(new) != qos_class(old) {
        let status = root.at("status.qosClass");
        let why = "Pod QOS Class may not change as a result of resizing";
        status.invalid(errors, why);
    }
    let whole = value::at(old, "spec.resources").unwrap_or(&Value::Null);
    resources(&root.at("spec.resources"), whole, errors);
    for field in ["spec.containers", "spec.initContainers"] {
        let olds = value::list(old, field);
        for (container, before) in root.at(field).items().zip(olds) {
            resources(&container.at("resources"), &before["resources"], errors);
        }
    }
}

fn resources(resources: &At<'_>, old: &Value, errors: &mut FieldErrors) {
    for kind in ["limits", "requests"] {
        let (now, before) = (value::map(resources.value(), kind), value::map(old, kind));
        let amount = |of: Option<&serde_json::Map<String, Value>>, name: &str| {
            of.and_then(|all| all.get(name)).cloned()
        };
        let names = now.into_iter().chain(before).flat_map(|all| all.keys());
        let fixed = |name: &&String| !matches!(name.as_str(), "cpu" | "memory");
        if names
            .clone()
            .any(|name| fixed(&name) && amount(now, name) != amount(before, name))
        {
            let why = "only cpu and memory resources are mutable";
            return resources.forbidden(errors, why);
        }
        let gone = |name: &&String| now.is_none_or(|now| !now.contains_key(*name));
        if before
            .into_iter()
            .flat_map(|all| all.keys())
            .any(|name| gone(&name))
        {
            let why = format!("resource {kind} cannot be removed");
            resources.at(kind).forbidden(errors, why);
        }
    }
}

/// Containers to look into a pod are added, never changed nor taken away.
pub(super) fn validate_debuggers(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let root = At::root(new);
    let list = root.at("spec.ephemeralContainers");
    for before in value::list(old, "spec.ephemeralContainers") {
        let name = value::text(before, "name");
        match list.items().find(|one| one.at("name").text() == name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                list.forbidden(errors, why);
            }
            Some(after) if after.value() != before => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n");
                list.forbidden(errors, why);
            }
            Some(_) => {}
        }
    }
}
