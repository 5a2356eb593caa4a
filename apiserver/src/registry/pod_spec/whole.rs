//! Resources of a whole pod (`spec.resources`), which its containers share.

use std::collections::BTreeMap;

use peapod_api::quantity::Quantity;
use serde_json::{Map as JsonMap, Value};

use crate::registry::at::At;
use crate::registry::checks;
use crate::registry::field_error::{FieldError, FieldErrors};
use crate::registry::value;

/// What a pod can have as a whole, beside huge pages.
const SUPPORTED: [&str; 2] = ["cpu", "memory"];

type Amounts = BTreeMap<String, Quantity>;

fn is_supported(name: &str) -> bool {
    SUPPORTED.contains(&name) || name.starts_with("hugepages-")
}

fn amounts(of: &Value, path: &str) -> Amounts {
    let all = value::map(of, path).into_iter().flatten();
    let parsed = all.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.parse().ok()?)));
    parsed.collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let old = sum.get(name).copied();
        sum.insert(name.clone(), old.map_or(*amount, |old| old.plus(*amount)));
    }
}

/// What the containers request together: those that run together, or an init container beside the
/// sidecars before it, if that is more.
fn together(spec: &Value) -> Amounts {
    let own = |container: &Value| amounts(container, "resources.requests");
    let mut sum = Amounts::new();
    for container in value::list(spec, "containers") {
        add(&mut sum, &own(container));
    }
    let (mut sidecars, mut peaks) = (Amounts::new(), Vec::new());
    for init in value::list(spec, "initContainers") {
        let mut beside = sidecars.clone();
        add(&mut beside, &own(init));
        if value::text(init, "restartPolicy") == "Always" {
            sidecars = beside.clone();
        }
        peaks.push(beside);
    }
    add(&mut sum, &sidecars);
    for (name, amount) in peaks.into_iter().flatten() {
        let most = sum.get(&name).map_or(amount, |old| (*old).max(amount));
        sum.insert(name, most);
    }
    sum
}

/// What a pod with resources of its own does not say: it requests what its containers do, and otherwise
/// its limit.
pub(super) fn default_requests(spec: &mut Value) {
    let limits = value::map(spec, "resources.limits").cloned();
    let limits = limits.unwrap_or_default();
    if limits.is_empty() && value::map(spec, "resources.requests").is_none_or(JsonMap::is_empty) {
        return;
    }
    let asked = together(spec);
    let requests = value::entry(spec, "resources.requests");
    if !requests.is_object() {
        *requests = Value::Object(JsonMap::new());
    }
    let asked = asked
        .into_iter()
        .map(|(name, amount)| (name, amount.to_string().into()));
    for (name, amount) in asked.chain(limits) {
        if is_supported(&name) && requests.get(&name).is_none() {
            requests[&name] = amount;
        }
    }
}

/// Checks them by themselves and against the containers'.
pub(super) fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    let resources = spec.at("resources");
    if !resources.is_set() {
        return;
    }
    let claims = resources.at("claims");
    if !claims.is_empty() {
        claims.forbidden(errors, "claims may not be set for Resources at pod-level");
    }
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    for list in [&limits, &requests] {
        for (name, quantity) in list.entries() {
            if !is_supported(name) {
                errors.push(FieldError::not_supported(list, name, &SUPPORTED));
            }
            checks::quantity_not_negative(&quantity, errors);
        }
    }
    let most = amounts(resources.value(), "limits");
    let asked = together(spec.value());
    for (name, request) in requests.entries() {
        let Some(amount) = checks::quantity(&request) else {
            continue;
        };
        if let Some(limit) = most.get(name).filter(|limit| amount > **limit) {
            request.invalid(
                errors,
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
        if let Some(sum) = asked.get(name).filter(|sum| **sum > amount) {
            let why =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            request.invalid(errors, why);
        }
    }
    for field in ["initContainers", "containers"] {
        for container in spec.at(field).items() {
            for (name, limit) in container.at("resources.limits").entries() {
                let of_pod = most.get(name).copied();
                let over = checks::quantity(&limit)
                    .zip(of_pod)
                    .filter(|(own, whole)| own > whole);
                if let Some((_, whole)) = over {
                    let why = format!("must be less than or equal to pod limits of {whole}");
                    limit.invalid(errors, why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(resources: Value, containers: &[Value]) -> Value {
        let each = containers.iter().enumerate();
        let named = each.map(|(n, own)| json!({"name": format!("c{n}"), "resources": own}));
        json!({"resources": resources, "containers": named.collect::<Vec<_>>()})
    }

    #[test]
    fn what_is_not_said_follows_from_the_rest() {
        let request = json!({"requests": {"cpu": "200m"}});
        let mut pod = spec(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            &[request.clone(), request],
        );
        default_requests(&mut pod);
        assert_eq!(
            pod["resources"]["requests"],
            json!({"cpu": "400m", "memory": "1Gi"})
        );
        let mut none = spec(Value::Null, &[json!({"requests": {"cpu": "1"}})]);
        default_requests(&mut none);
        assert_eq!(none["resources"], Value::Null);
    }

    #[test]
    fn sidecars_and_init_containers_count_as_they_run() {
        let init = |cpu: &str, policy: &str| json!({"restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let mut pod = spec(Value::Null, &[json!({"requests": {"cpu": "100m"}})]);
        pod["initContainers"] = json!([init("50m", "Always"), init("500m", "")]);
        assert_eq!(together(&pod)["cpu"].milli(), 550);
        pod["initContainers"] = json!([init("500m", ""), init("50m", "Always")]);
        assert_eq!(together(&pod)["cpu"].milli(), 500);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (resources, container, said) in [
            (
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
                json!({}),
                None,
            ),
            (
                json!({"requests": {"cpu": "3"}, "limits": {"cpu": "2"}}),
                json!({}),
                Some("cpu limit of 2"),
            ),
            (
                json!({"requests": {"cpu": "1"}}),
                json!({"requests": {"cpu": "2"}}),
                Some("aggregate container requests of 2"),
            ),
            (
                json!({"limits": {"cpu": "1"}}),
                json!({"limits": {"cpu": "2"}}),
                Some("pod limits of 1"),
            ),
            (
                json!({"requests": {"ephemeral-storage": "1"}}),
                json!({}),
                Some("supported values"),
            ),
            (
                json!({"claims": [{"name": "x"}]}),
                json!({}),
                Some("at pod-level"),
            ),
        ] {
            let pod = json!({"spec": spec(resources, &[container])});
            let mut errors = FieldErrors::new();
            validate(&At::root(&pod).at("spec"), &mut errors);
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            match said {
                None => assert!(errors.is_empty(), "{text:?}"),
                Some(said) => assert!(text.join("; ").contains(said), "{text:?}"),
            }
        }
    }
}
