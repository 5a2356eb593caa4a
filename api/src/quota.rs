//! What an object uses of a ResourceQuota. Pure; admission charges by it, the controller counts
//! by it.
//!
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by the names that quotas have for them, as `requests.cpu` or `count/jobs.batch`.
pub type Usage = BTreeMap<String, Quantity>;

/// Kinds of the core group that quotas also name without `count/`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Resources that quotas also name without `requests.`.
const SHORT: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// The resources of the core group whose objects use what a quota's name stands for, or the one
/// of another group: (group, plural). `None` for a name that nothing uses.
pub fn resource_of(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, plural));
    }
    if COUNTED.contains(&name) {
        return Some(("", name));
    }
    if name.starts_with("services.") {
        return Some(("", "services"));
    }
    if name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") {
        return Some(("", "persistentvolumeclaims"));
    }
    let of_pods = SHORT.contains(&name)
        || ["requests.", "limits.", "hugepages-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    of_pods.then_some(("", "pods"))
}

/// What an object uses, under every name that there is for it.
pub fn usage(group: &str, plural: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let counted = match group {
        "" => format!("count/{plural}"),
        group => format!("count/{plural}.{group}"),
    };
    let one = Quantity::from_units(1);
    if group.is_empty() && plural == "pods" {
        usage.insert(counted, one);
        if !has_ended(object) {
            usage.insert("pods".to_owned(), one);
            add_compute(object, &mut usage);
        }
        return usage;
    }
    usage.insert(counted, one);
    if group.is_empty() && COUNTED.contains(&plural) {
        usage.insert(plural.to_owned(), one);
    }
    match (group, plural) {
        ("", "services") => add_service(object, &mut usage),
        ("", "persistentvolumeclaims") => add_claim(object, &mut usage),
        _ => {}
    }
    usage
}

/// What the one has more than the other, or less; only what differs.
pub fn difference(new: &Usage, old: &Usage) -> Usage {
    let zero = Quantity::from_units(0);
    let names = new.keys().chain(old.keys());
    let changes = names.map(|name| {
        let amount = |usage: &Usage| usage.get(name).copied().unwrap_or(zero);
        (name.clone(), amount(new).minus(amount(old)))
    });
    changes.filter(|(_, change)| !change.is_zero()).collect()
}

/// Adds the one to the other.
pub fn add(total: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(Quantity::from_units(0));
        *sum = sum.plus(*amount);
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What a container declares: `part` is `/resources/requests` or `/resources/limits`.
pub fn amounts(container: &Value, part: &str) -> Usage {
    let found = container.pointer(part).and_then(Value::as_object);
    let parsed = found.into_iter().flatten().filter_map(|(name, amount)| {
        let amount = amount.as_str()?.parse().ok()?;
        Some((name.clone(), amount))
    });
    parsed.collect()
}

/// What a pod declares as a whole, or its containers have together: the ordinary ones and the init containers
/// that stay run at once, another init container runs before them.
pub fn declared(pod: &Value, part: &str) -> Usage {
    let mut together = Usage::new();
    for container in list(pod, "/spec/containers") {
        add(&mut together, &amounts(container, part));
    }
    let (mut staying, mut first) = (Usage::new(), Usage::new());
    for container in list(pod, "/spec/initContainers") {
        let own = amounts(container, part);
        if text(container, "/restartPolicy") == "Always" {
            add(&mut together, &own);
            add(&mut staying, &own);
            continue;
        }
        let mut now = staying.clone();
        add(&mut now, &own);
        for (name, amount) in now {
            let most = first.entry(name).or_insert(amount);
            *most = (*most).max(amount);
        }
    }
    for (name, amount) in first {
        let most = together.entry(name).or_insert(amount);
        *most = (*most).max(amount);
    }
    let whole = amounts(pod, &format!("/spec{part}"));
    together.extend(whole);
    together
}

/// The same with the overhead of its runtime.
fn of_pod(pod: &Value, part: &str) -> Usage {
    let mut all = declared(pod, part);
    add(&mut all, &amounts(pod, "/spec/overhead"));
    all
}

fn add_compute(pod: &Value, usage: &mut Usage) {
    for (name, amount) in of_pod(pod, "/resources/requests") {
        if SHORT.contains(&name.as_str()) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in of_pod(pod, "/resources/limits") {
        if SHORT.contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

fn add_service(service: &Value, usage: &mut Usage) {
    let ports = list(service, "/spec/ports");
    let kind = text(service, "/spec/type");
    let ported = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer"
            if service.pointer("/spec/allocateLoadBalancerNodePorts")
                == Some(&Value::Bool(false)) =>
        {
            ports
                .iter()
                .filter(|port| port.get("nodePort").is_some())
                .count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let count = |number: usize| Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX));
    let balanced = usize::from(kind == "LoadBalancer");
    usage.insert("services.nodeports".to_owned(), count(ported));
    usage.insert("services.loadbalancers".to_owned(), count(balanced));
}

fn add_claim(claim: &Value, usage: &mut Usage) {
    const CLASS: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";
    let class = match text(claim, CLASS) {
        "" => text(claim, "/spec/storageClassName"),
        annotated => annotated,
    };
    let storage = amounts(claim, "/spec/resources/requests").remove("storage");
    let one = Quantity::from_units(1);
    let prefix = format!("{class}.storageclass.storage.k8s.io/");
    if !class.is_empty() {
        usage.insert(format!("{prefix}persistentvolumeclaims"), one);
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            usage.insert(format!("{prefix}requests.storage"), storage);
        }
    }
}

/// Whether a quota is about an object: the scopes of a quota are about pods only (and
/// `VolumeAttributesClass` about claims).
pub fn covers(spec: &ResourceQuotaSpec, group: &str, plural: &str, object: &Value) -> bool {
    let plain = spec
        .scopes
        .iter()
        .flatten()
        .map(|scope| (scope.as_str(), "Exists", &[][..]));
    let selected = spec.scope_selector.iter().flat_map(|selector| {
        let all = selector.match_expressions.iter().flatten();
        all.map(|one| {
            let values = one.values.as_deref().unwrap_or_default();
            (one.scope_name.as_str(), one.operator.as_str(), values)
        })
    });
    let mut scopes = plain.chain(selected);
    scopes.all(|(scope, operator, values)| match (group, plural) {
        ("", "pods") => pod_is_in(scope, operator, values, object),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            let class = text(object, "/spec/volumeAttributesClassName");
            is_among(class, operator, values)
        }
        _ => false,
    })
}

fn pod_is_in(scope: &str, operator: &str, values: &[String], pod: &Value) -> bool {
    let terminating = pod
        .pointer("/spec/activeDeadlineSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => is_among(text(pod, "/spec/priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn is_among(name: &str, operator: &str, values: &[String]) -> bool {
    let listed = values.iter().any(|value| value == name);
    match operator {
        "In" => listed,
        "NotIn" => !listed,
        "DoesNotExist" => name.is_empty(),
        _ => !name.is_empty(),
    }
}

fn is_best_effort(pod: &Value) -> bool {
    let something = |part| {
        let all = of_pod(pod, part);
        ["cpu", "memory"]
            .iter()
            .any(|name| all.get(*name).is_some_and(|amount| !amount.is_zero()))
    };
    !something("/resources/requests") && !something("/resources/limits")
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !list(term, "/namespaces").is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let place = |list_name: &str| list(pod, &format!("/spec/affinity/{kind}/{list_name}"));
        let required = place("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = place("preferredDuringSchedulingIgnoredDuringExecution");
        let weighted = preferred
            .iter()
            .filter_map(|one| one.get("podAffinityTerm"));
        required.iter().chain(weighted).any(crosses)
    })
}

/// What a pod must say and does not, because a quota limits it: by resource, the containers that
/// are silent.
pub fn unspecified<'a>(
    limited: impl Iterator<Item = &'a String>,
    pod: &Value,
) -> BTreeMap<String, Vec<String>> {
    let mut missing = BTreeMap::new();
    for name in limited {
        let (part, resource) = match name.split_once('.') {
            Some(("limits", resource)) if SHORT.contains(&resource) => {
                ("/resources/limits", resource)
            }
            Some(("requests", resource)) if SHORT.contains(&resource) => {
                ("/resources/requests", resource)
            }
            None if SHORT.contains(&name.as_str()) => ("/resources/requests", name.as_str()),
            _ => continue,
        };
        if amounts(pod, &format!("/spec{part}")).contains_key(resource) {
            continue;
        }
        let containers = list(pod, "/spec/initContainers")
            .iter()
            .chain(list(pod, "/spec/containers"));
        let silent = containers.filter(|one| !amounts(one, part).contains_key(resource));
        let silent: Vec<String> = silent.map(|one| text(one, "/name").to_owned()).collect();
        if !silent.is_empty() {
            missing.insert(name.clone(), silent);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(usage: &Usage) -> String {
        let parts = usage
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"));
        parts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_objects_use() {
        let pod = json!({"spec": {
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m", "example.com/gpu": "2"}}},
            ],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}}}],
        }});
        assert_eq!(
            shown(&usage("", "pods", &pod)),
            "count/pods=1 cpu=1 limits.cpu=1 memory=1Gi pods=1 requests.cpu=1 requests.example.com/gpu=2 requests.memory=1Gi"
        );
        let mut ended = pod.clone();
        ended["status"] = json!({"phase": "Succeeded"});
        assert_eq!(shown(&usage("", "pods", &ended)), "count/pods=1");
        let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
        assert_eq!(
            shown(&usage("", "services", &service)),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2"
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            shown(&usage("", "persistentvolumeclaims", &claim)),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
        );
        assert_eq!(
            shown(&usage("batch", "jobs", &json!({}))),
            "count/jobs.batch=1"
        );
        let less = difference(&usage("", "pods", &ended), &usage("", "pods", &pod));
        assert_eq!(less["requests.cpu"].to_string(), "-1");
    }

    #[test]
    fn names_belong_to_resources() {
        for (name, expected) in [
            ("pods", Some(("", "pods"))),
            ("requests.cpu", Some(("", "pods"))),
            ("requests.storage", Some(("", "persistentvolumeclaims"))),
            (
                "fast.storageclass.storage.k8s.io/requests.storage",
                Some(("", "persistentvolumeclaims")),
            ),
            ("services.nodeports", Some(("", "services"))),
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/secrets", Some(("", "secrets"))),
            ("nonsense", None),
        ] {
            assert_eq!(resource_of(name), expected, "{name}");
        }
    }

    #[test]
    fn scopes() {
        let covers = |spec: Value, pod: Value| {
            covers(&serde_json::from_value(spec).unwrap(), "", "pods", &pod)
        };
        let plain = json!({"spec": {"containers": [{}]}});
        assert!(covers(json!({}), plain.clone()));
        assert!(covers(
            json!({"scopes": ["BestEffort", "NotTerminating"]}),
            plain.clone()
        ));
        assert!(!covers(json!({"scopes": ["Terminating"]}), plain.clone()));
        let high = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
        assert!(!covers(high.clone(), plain));
        assert!(covers(high, json!({"spec": {"priorityClassName": "high"}})));
    }

    #[test]
    fn what_must_be_said() {
        let names = [
            "limits.cpu".to_owned(),
            "memory".to_owned(),
            "pods".to_owned(),
        ];
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}});
        let missing = unspecified(names.iter(), &pod);
        assert_eq!(
            missing,
            [("memory".to_owned(), vec!["a".to_owned()])].into()
        );
    }
}
