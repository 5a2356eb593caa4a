//! What a pod asks for: requests, limits, and the Quality of Service class they make.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// `status.qosClass`: Guaranteed, Burstable or BestEffort.
pub fn class(spec: &PodSpec) -> &'static str {
    if let Some(pod) = &spec.resources
        && (pod.limits.is_some() || pod.requests.is_some())
    {
        return class_of([Some(pod)].into_iter());
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    class_of(
        init.iter()
            .chain(&spec.containers)
            .map(|c| c.resources.as_ref()),
    )
}

fn class_of<'a>(
    containers: impl Iterator<Item = Option<&'a ResourceRequirements>>,
) -> &'static str {
    let (mut any, mut guaranteed, mut none_seen) = (false, true, true);
    for resources in containers {
        none_seen = false;
        let limits = amounts(resources.and_then(|r| r.limits.as_ref()));
        let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
        for name in ["cpu", "memory"] {
            let limit = limits.get(name).filter(|q| !q.is_zero());
            let request = requests.get(name).filter(|q| !q.is_zero());
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any && !none_seen, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Amounts as numbers; what does not parse was refused by the API server and counts as nothing.
pub fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let mut parsed = Amounts::new();
    for (name, text) in list.into_iter().flatten() {
        if let Ok(quantity) = Quantity::try_from(text) {
            parsed.insert(name.clone(), quantity);
        }
    }
    parsed
}

/// A container's requests; a limit without a request counts as one.
fn container_requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let mut requests = amounts(resources.and_then(|r| r.limits.as_ref()));
    requests.extend(amounts(resources.and_then(|r| r.requests.as_ref())));
    requests
}

fn add(into: &mut Amounts, what: &Amounts) {
    for (name, amount) in what {
        let sum = into.get(name).map_or(*amount, |old| old.plus(*amount));
        into.insert(name.clone(), sum);
    }
}

fn raise(into: &mut Amounts, what: &Amounts) {
    for (name, amount) in what {
        let most = into.get(name).map_or(*amount, |old| (*old).max(*amount));
        into.insert(name.clone(), most);
    }
}

/// What the pod needs of a node: the sum of its app containers and sidecars, or what an init
/// container needs beside the sidecars before it, whichever is more; pod-level requests and
/// overhead count as declared.
pub fn requests(spec: &PodSpec) -> Amounts {
    let mut total = Amounts::new();
    let mut peak = Amounts::new();
    let mut sidecars = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &container_requests(container));
    }
    for init in spec.init_containers.iter().flatten() {
        let own = container_requests(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut peak, &beside);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    if let Some(pod) = spec.resources.as_ref() {
        total.extend(amounts(pod.requests.as_ref()));
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)], always: bool) -> Container {
        let map = |list: &[(&str, &str)]| {
            let pairs = list
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Text((*v).to_owned())));
            Some(pairs.collect())
        };
        Container {
            resources: Some(ResourceRequirements {
                requests: map(requests),
                limits: map(limits),
                ..ResourceRequirements::default()
            }),
            restart_policy: always.then(|| "Always".to_owned()),
            ..Container::default()
        }
    }

    #[test]
    fn classes() {
        let spec = |containers| PodSpec {
            containers,
            ..PodSpec::default()
        };
        assert_eq!(class(&spec(vec![container(&[], &[], false)])), "BestEffort");
        let both = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(
            class(&spec(vec![container(&[], &both, false)])),
            "Guaranteed"
        );
        assert_eq!(
            class(&spec(vec![container(&both, &[], false)])),
            "Burstable"
        );
        let mixed = vec![container(&both, &both, false), container(&[], &[], false)];
        assert_eq!(class(&spec(mixed)), "Burstable");
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let spec = PodSpec {
            containers: vec![container(&[("cpu", "100m")], &[], false)],
            init_containers: Some(vec![
                container(&[("cpu", "50m")], &[], true),
                container(&[("cpu", "500m")], &[], false),
            ]),
            ..PodSpec::default()
        };
        assert_eq!(requests(&spec)["cpu"].milli(), 550);
    }
}
