//! `LimitRanger`: what the LimitRanges of a namespace say of its pods and claims. Containers that
//! leave something out get the defaults; what is out of bounds is refused.

use async_trait::async_trait;
use peapod_api::quantity::Quantity;
use serde_json::{Map, Value, json};

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
        if !grows && !write.creates("", "pods") {
            return Ok(());
        }
        let ranges = in_namespace(api, "", "limitranges", write.namespace);
        let broken: Vec<String> = ranges
            .iter()
            .flat_map(|range| value::list(range, "spec.limits"))
            .flat_map(|limit| match of_claim {
                true => claim_faults(object, limit),
                false => pod_faults(object, limit),
            })
            .collect();
        match broken.as_slice() {
            [] => Ok(()),
            [only] => Err(write.forbid(only)),
            several => Err(write.forbid(format!("[{}]", several.join(", ")))),
        }
    }
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
    requests: Map<String, Value>,
    limits: Map<String, Value>,
}

fn quantity(amounts: &Map<String, Value>, resource: &str) -> Option<Quantity> {
    amounts.get(resource)?.as_str()?.parse().ok()
}

fn of_container(container: &Value) -> Amounts {
    let amounts = |path| value::map(container, path).cloned().unwrap_or_default();
    Amounts {
        requests: amounts("resources.requests"),
        limits: amounts("resources.limits"),
    }
}

/// Those of the containers together, or of the greatest init container where it has more.
fn of_pod(pod: &Value) -> Amounts {
    let spec = &pod["spec"];
    let all = |list: &str| {
        value::list(spec, list)
            .iter()
            .map(of_container)
            .collect::<Vec<_>>()
    };
    let (own, init) = (all("containers"), all("initContainers"));
    let total = |part: fn(&Amounts) -> &Map<String, Value>| {
        let mut sum: Map<String, Value> = Map::new();
        for (resource, _) in own.iter().flat_map(part) {
            let amounts = own.iter().filter_map(|one| quantity(part(one), resource));
            let together = amounts.fold(Quantity::from_units(0), Quantity::plus);
            sum.insert(resource.clone(), together.to_string().into());
        }
        for (resource, amount) in init.iter().flat_map(part) {
            let more =
                quantity(&sum, resource) < amount.as_str().and_then(|text| text.parse().ok());
            if more {
                sum.insert(resource.clone(), amount.clone());
            }
        }
        sum
    };
    Amounts {
        requests: total(|one| &one.requests),
        limits: total(|one| &one.limits),
    }
}

fn pod_faults(pod: &Value, limit: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    match value::text(limit, "type") {
        "Container" => {
            let own = value::list(spec, "containers").iter();
            let all = own.chain(value::list(spec, "initContainers"));
            all.flat_map(|container| faults(&of_container(container), limit))
                .collect()
        }
        "Pod" => faults(&of_pod(pod), limit),
        _ => Vec::new(),
    }
}

/// What breaks a limit's minimum, maximum or ratio, in upstream's words.
fn faults(amounts: &Amounts, limit: &Value) -> Vec<String> {
    let kind = value::text(limit, "type");
    let mut found = Vec::new();
    for (resource, least) in value::map(limit, "min").into_iter().flatten() {
        let least = least.as_str().unwrap_or_default();
        let bound: Option<Quantity> = least.parse().ok();
        let rule = format!("minimum {resource} usage per {kind} is {least}");
        let below = |given: &Quantity| bound.is_some_and(|bound| *given < bound);
        match quantity(&amounts.requests, resource) {
            None => found.push(format!("{rule}.  No request is specified")),
            Some(given) if below(&given) => found.push(format!("{rule}, but request is {given}")),
            Some(_) => {
                let given = quantity(&amounts.limits, resource).filter(below);
                found.extend(given.map(|given| format!("{rule}, but limit is {given}")));
            }
        }
    }
    for (resource, most) in value::map(limit, "max").into_iter().flatten() {
        let most = most.as_str().unwrap_or_default();
        let bound: Option<Quantity> = most.parse().ok();
        let rule = format!("maximum {resource} usage per {kind} is {most}");
        let above = |given: &Quantity| bound.is_some_and(|bound| *given > bound);
        match quantity(&amounts.limits, resource) {
            None => found.push(format!("{rule}.  No limit is specified")),
            Some(given) if above(&given) => found.push(format!("{rule}, but limit is {given}")),
            Some(_) => {
                let given = quantity(&amounts.requests, resource).filter(above);
                found.extend(given.map(|given| format!("{rule}, but request is {given}")));
            }
        }
    }
    found.extend(ratio_faults(amounts, limit, kind));
    found
}

fn ratio_faults(amounts: &Amounts, limit: &Value, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (resource, most) in value::map(limit, "maxLimitRequestRatio")
        .into_iter()
        .flatten()
    {
        let most = most.as_str().unwrap_or_default();
        let rule = format!("{resource} max limit to request ratio per {kind} is {most}");
        let amount = |of| {
            quantity(of, resource)
                .map(Quantity::milli)
                .filter(|milli| *milli > 0)
        };
        let bound = most
            .parse()
            .map_or(f64::MAX, |q: Quantity| q.milli() as f64 / 1000.0);
        match (amount(&amounts.requests), amount(&amounts.limits)) {
            (None, _) => found.push(format!(
                "{rule}, but no request is specified or request is 0"
            )),
            (_, None) => found.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit as f64 / request as f64;
                if ratio > bound {
                    found.push(format!("{rule}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
    found
}

fn claim_faults(claim: &Value, limit: &Value) -> Vec<String> {
    if value::text(limit, "type") != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = value::map(claim, "spec.resources.requests").cloned();
    let Some(given) = quantity(&requests.unwrap_or_default(), "storage") else {
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
        let told = |limit: Value| pod_faults(&pod, &limit);
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
}
