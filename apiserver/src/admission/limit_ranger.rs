//! `LimitRanger`: what the LimitRanges of a namespace say of its pods and claims. Containers that
//! leave something out get the defaults; what is out of bounds is refused.

use async_trait::async_trait;
use peapod_api::quantity::Quantity;
use peapod_api::quota::{self, Usage};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, in_namespace};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// Tells what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if !write.creates("", "pods") {
            return Ok(());
        }
        for range in in_namespace(api, "", "limitranges", write.namespace) {
            fill(pod, &range);
        }
        Ok(())
    }

    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let of_claim = write.is_on("", "persistentvolumeclaims");
        let grows = write.operation != Operation::Delete && of_claim;
        if !grows && !write.creates("", "pods") && !resizes(write) {
            return Ok(());
        }
        let old = write.old.filter(|_| resizes(write));
        let ranges = in_namespace(api, "", "limitranges", write.namespace);
        let broken: Vec<String> = ranges
            .iter()
            .flat_map(|range| value::list(range, "spec.limits"))
            .flat_map(|limit| match of_claim {
                true => claim_faults(object, limit),
                false => pod_faults(object, old, limit),
            })
            .collect();
        match broken.as_slice() {
            [] => Ok(()),
            [only] => Err(write.forbid(only)),
            several => Err(write.forbid(format!("[{}]", several.join(", ")))),
        }
    }
}

/// Whether what a pod asks for is changed in place.
fn resizes(write: &Attributes<'_>) -> bool {
    let kind = &write.resource.kind;
    let pods = kind.group.is_empty() && kind.plural == "pods";
    pods && write.subresource == "resize" && write.operation == Operation::Update
}

/// Gives containers the defaults of a range.
fn fill(pod: &mut Value, range: &Value) {
    let limits = value::list(range, "spec.limits").iter();
    let mut told = Vec::new();
    for limit in limits.filter(|limit| value::text(limit, "type") == "Container") {
        for (list, what) in [
            ("containers", "container"),
            ("initContainers", "init container"),
        ] {
            let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                told.extend(fill_container(container, limit, what));
            }
        }
    }
    if told.is_empty() {
        return;
    }
    let annotations = value::entry(pod, "metadata.annotations");
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
}

fn fill_container(container: &mut Value, limit: &Value, what: &str) -> Vec<String> {
    let name = value::text(container, "name").to_owned();
    let mut told = Vec::new();
    for (from, to, part) in [
        ("defaultRequest", "requests", "request"),
        ("default", "limits", "limit"),
    ] {
        let mut set = Vec::new();
        for (resource, quantity) in value::map(limit, from).into_iter().flatten() {
            let place = value::entry(container, &format!("resources.{to}"));
            if !place.is_object() {
                *place = json!({});
            }
            if place.get(resource).is_none() {
                place[resource] = quantity.clone();
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            told.push(format!("{} {part} for {what} {name}", set.join(", ")));
        }
    }
    told
}

/// Requests and limits.
struct Amounts {
    requests: Usage,
    limits: Usage,
}

// === impl Amounts ===

impl Amounts {
    fn of_container(container: &Value) -> Self {
        Self {
            requests: quota::amounts(container, "/resources/requests"),
            limits: quota::amounts(container, "/resources/limits"),
        }
    }

    /// What the pod declares as a whole goes before what its containers do.
    fn of_pod(pod: &Value) -> Self {
        Self {
            requests: quota::declared(pod, "/resources/requests"),
            limits: quota::declared(pod, "/resources/limits"),
        }
    }

    /// Whether neither the request nor the limit of a resource is another.
    fn agrees_on(&self, resource: &str, other: &Self) -> bool {
        self.requests.get(resource) == other.requests.get(resource)
            && self.limits.get(resource) == other.limits.get(resource)
    }
}

/// What of a pod breaks a limit. `old` is the pod before it was resized: what it had it may keep.
fn pod_faults(pod: &Value, old: Option<&Value>, limit: &Value) -> Vec<String> {
    match value::text(limit, "type") {
        "Container" => containers(pod)
            .flat_map(|container| {
                let name = value::text(container, "name");
                let before = old.and_then(|old| {
                    containers(old).find(|before| value::text(before, "name") == name)
                });
                let before = before.map(Amounts::of_container);
                faults(&Amounts::of_container(container), before.as_ref(), limit)
            })
            .collect(),
        "Pod" => {
            let before = old.map(Amounts::of_pod);
            faults(&Amounts::of_pod(pod), before.as_ref(), limit)
        }
        _ => Vec::new(),
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let own = value::list(pod, "spec.containers").iter();
    own.chain(value::list(pod, "spec.initContainers"))
}

/// What breaks a limit's minimum, maximum or ratio, in upstream's words.
fn faults(amounts: &Amounts, before: Option<&Amounts>, limit: &Value) -> Vec<String> {
    let kind = value::text(limit, "type");
    let bounds = |side: &str| {
        let all = value::map(limit, side).into_iter().flatten();
        let new = all.filter(|(resource, _)| {
            before.is_none_or(|before| !amounts.agrees_on(resource, before))
        });
        let parsed = new.filter_map(|(resource, bound)| {
            let text = bound.as_str()?;
            Some((resource.as_str(), text, text.parse::<Quantity>().ok()?))
        });
        parsed.collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (resource, text, least) in bounds("min") {
        let rule = format!("minimum {resource} usage per {kind} is {text}");
        match amounts.requests.get(resource) {
            None => found.push(format!("{rule}.  No request is specified")),
            Some(given) if *given < least => {
                found.push(format!("{rule}, but request is {given}"));
            }
            Some(_) => {
                let given = amounts.limits.get(resource).filter(|given| **given < least);
                found.extend(given.map(|given| format!("{rule}, but limit is {given}")));
            }
        }
    }
    for (resource, text, most) in bounds("max") {
        let rule = format!("maximum {resource} usage per {kind} is {text}");
        match amounts.limits.get(resource) {
            None => found.push(format!("{rule}.  No limit is specified")),
            Some(given) if *given > most => found.push(format!("{rule}, but limit is {given}")),
            Some(_) => {
                let given = amounts
                    .requests
                    .get(resource)
                    .filter(|given| **given > most);
                found.extend(given.map(|given| format!("{rule}, but request is {given}")));
            }
        }
    }
    for (resource, text, most) in bounds("maxLimitRequestRatio") {
        let rule = format!("{resource} max limit to request ratio per {kind} is {text}");
        found.extend(ratio_fault(amounts, resource, most).map(|why| format!("{rule}, but {why}")));
    }
    found
}

fn ratio_fault(amounts: &Amounts, resource: &str, most: Quantity) -> Option<String> {
    let amount = |of: &Usage| {
        of.get(resource)
            .map(|q| q.milli())
            .filter(|milli| *milli > 0)
    };
    match (amount(&amounts.requests), amount(&amounts.limits)) {
        (None, _) => Some("no request is specified or request is 0".to_owned()),
        (_, None) => Some("no limit is specified or limit is 0".to_owned()),
        (Some(request), Some(limit)) => {
            let ratio = limit as f64 / request as f64;
            let beyond = ratio > most.milli() as f64 / 1000.0;
            beyond.then(|| format!("provided ratio is {ratio:.6}"))
        }
    }
}

fn claim_faults(claim: &Value, limit: &Value) -> Vec<String> {
    if value::text(limit, "type") != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = quota::amounts(claim, "/spec/resources/requests");
    let Some(&given) = requests.get("storage") else {
        return Vec::new();
    };
    let bound = |side: &str| {
        let text = value::map(limit, side)?.get("storage")?.as_str()?;
        Some((text.to_owned(), text.parse::<Quantity>().ok()?))
    };
    let mut found = Vec::new();
    if let Some((text, _)) = bound("min").filter(|(_, least)| given < *least) {
        found.push(format!(
            "minimum storage usage per PersistentVolumeClaim is {text}, but request is {given}"
        ));
    }
    if let Some((text, _)) = bound("max").filter(|(_, most)| given > *most) {
        found.push(format!(
            "maximum storage usage per PersistentVolumeClaim is {text}, but request is {given}"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in_and_told() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": "5Mi"}}}]}});
        fill(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"memory": "5Mi", "cpu": "100m"}, "limits": {"cpu": "1"}})
        );
        let told = "LimitRanger plugin set: cpu request for container a; cpu limit for container a";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], told);
    }

    #[test]
    fn what_is_out_of_bounds_is_told() {
        let pod = json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "2"}}},
            {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}},
        ]}});
        let told = |limit: Value| pod_faults(&pod, None, &limit);
        assert_eq!(
            told(json!({"type": "Container", "max": {"cpu": "1"}})),
            ["maximum cpu usage per Container is 1, but limit is 2"]
        );
        assert_eq!(
            told(json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "2"}})),
            [
                "minimum cpu usage per Pod is 2, but request is 1",
                "maximum cpu usage per Pod is 2, but limit is 3"
            ]
        );
        assert_eq!(
            told(json!({"type": "Pod", "max": {"memory": "1Gi"}})),
            ["maximum memory usage per Pod is 1Gi.  No limit is specified"]
        );
        assert_eq!(
            told(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "3"}})),
            ["cpu max limit to request ratio per Container is 3, but provided ratio is 4.000000"]
        );
    }

    #[test]
    fn a_pod_as_a_whole_goes_before_its_containers() {
        let pod = json!({"spec": {
            "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}},
            "overhead": {"cpu": "10"},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}],
        }});
        let told = |limit: Value| pod_faults(&pod, None, &limit);
        assert_eq!(
            told(json!({"type": "Pod", "max": {"cpu": "2"}})),
            ["maximum cpu usage per Pod is 2, but limit is 4"]
        );
        assert!(told(json!({"type": "Pod", "min": {"cpu": "3", "memory": "1Mi"}})).is_empty());
        assert!(told(json!({"type": "Container", "min": {"cpu": "1"}})).is_empty());
    }

    #[test]
    fn sidecars_run_beside_the_containers() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": cpu("1")}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": cpu("1")},
                {"name": "i", "resources": cpu("1500m")}],
        }});
        assert_eq!(
            pod_faults(&pod, None, &json!({"type": "Pod", "min": {"cpu": "3"}})),
            ["minimum cpu usage per Pod is 3, but request is 2500m"]
        );
    }

    #[test]
    fn what_a_resized_pod_had_it_may_keep() {
        let pod = |cpu: &str, memory: &str| {
            let amounts = json!({"cpu": cpu, "memory": memory});
            json!({"spec": {"containers": [
                {"name": "a", "resources": {"requests": amounts, "limits": amounts}}]}})
        };
        let limit = json!({"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}});
        let old = pod("4", "1Gi");
        assert!(pod_faults(&pod("4", "512Mi"), Some(&old), &limit).is_empty());
        assert_eq!(
            pod_faults(&pod("3", "512Mi"), Some(&old), &limit),
            ["maximum cpu usage per Container is 2, but limit is 3"]
        );
    }
}
