//! The EndpointSlices that a service should have because of the pods that it selects. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::address;
use super::pack::{self, Changes, Group, Owner, Wanted, group};
use crate::common::owner;

/// Who manages our slices; those of others are left alone.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The changes that make `slices` what `pods` say; `zone_of` knows the zone of a node.
pub fn reconcile(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Changes {
    let meta = &service.metadata;
    let none = BTreeMap::new();
    let owner = Owner {
        service: (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        reference: owner::controller_reference(service),
        manager: MANAGER,
        labels: meta.labels.as_ref().unwrap_or(&none),
        annotations: BTreeMap::new(),
        headless: Some(address::is_headless(service)),
    };
    pack::reconcile(&owner, wanted(service, pods, zone_of), slices)
}

/// Every family has a group at least, so that a service without endpoints has an empty slice to
/// say so.
fn wanted(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> BTreeMap<Group, Wanted> {
    let mut wanted: BTreeMap<Group, Wanted> = BTreeMap::new();
    for family in address::families(service) {
        let mut any = false;
        for pod in pods {
            if address::addresses(pod, family).is_empty() {
                continue;
            }
            any = true;
            let ports = address::ports(service, pod);
            let zone = zone_of(crate::common::pods::node_name(pod));
            let endpoint = address::endpoint(service, pod, family, zone);
            let group = wanted.entry(group(family, &ports));
            group.or_insert_with(|| Wanted::on(ports)).add(endpoint);
        }
        if !any {
            wanted.insert(group(family, &[]), Wanted::default());
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};
    use serde_json::json;

    fn show(slice: &EndpointSlice) -> String {
        let ports = slice.ports.iter().flatten().map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            format!(
                "{name}:{}/{}",
                port.port.unwrap(),
                port.protocol.as_deref().unwrap()
            )
        });
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            let flag = |set: Option<bool>, name| if set == Some(true) { name } else { "" };
            let extra = [&endpoint.hostname, &endpoint.node_name, &endpoint.zone];
            let extra: Vec<_> = extra.into_iter().flatten().cloned().collect();
            format!(
                "\n    {} {}{}{}{}",
                endpoint.addresses.join(","),
                flag(conditions.ready, "ready "),
                flag(conditions.serving, "serving "),
                flag(conditions.terminating, "terminating "),
                extra.join(" "),
            )
        });
        let ports: Vec<_> = ports.collect();
        let endpoints: String = endpoints.collect();
        format!("{} [{}]{endpoints}", slice.address_type, ports.join(" "))
    }

    fn run(input: &str) -> String {
        let service: Service = objects(input, "Service").remove(0);
        let pods: Vec<_> = objects(input, "Pod").into_iter().map(Arc::new).collect();
        let slices: Vec<_> = objects(input, "EndpointSlice")
            .into_iter()
            .map(Arc::new)
            .collect();
        let zone = |node: &str| (node == "n1").then(|| "zone-a".to_owned());
        let changes = reconcile(&service, &pods, &slices, zone);
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap();
        let created = changes
            .create
            .iter()
            .map(|slice| format!("create {}", show(slice)));
        let updated = changes.update.iter();
        let updated = updated.map(|(_, slice)| format!("update {} {}", name(slice), show(slice)));
        let deleted = changes
            .delete
            .iter()
            .map(|slice| format!("delete {}", name(slice)));
        let lines: Vec<_> = created.chain(updated).chain(deleted).collect();
        if lines.is_empty() {
            return "nothing".to_owned();
        }
        lines.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("endpointslice", run);
    }

    fn pod(number: usize) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", number / 200, number % 200 + 1);
        let pod = json!({
            "metadata": {"name": format!("p{number:04}"), "uid": format!("u{number:04}")},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn service() -> Service {
        let service = json!({
            "metadata": {"name": "s", "namespace": "d", "uid": "s"},
            "spec": {"ipFamilies": ["IPv4"], "selector": {"a": "b"}, "ports": [{"port": 80}]},
        });
        serde_json::from_value(service).unwrap()
    }

    /// Applies changes, naming created slices.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, changes: Changes) -> usize {
        let count = changes.create.len() + changes.update.len() + changes.delete.len();
        let name = |slice: &EndpointSlice| slice.metadata.name.clone();
        slices.retain(|slice| !changes.delete.iter().any(|gone| name(gone) == name(slice)));
        for (_, new) in changes.update {
            let old = slices
                .iter_mut()
                .find(|old| name(old) == name(&new))
                .unwrap();
            *old = Arc::new(new);
        }
        for mut new in changes.create {
            new.metadata.name = Some(format!("s-{}", slices.len()));
            slices.push(Arc::new(new));
        }
        count
    }

    #[test]
    fn hundreds_of_pods_and_small_changes() {
        let (service, mut slices) = (service(), Vec::new());
        let mut pods: Vec<_> = (0..250).map(pod).collect();
        let step = |pods: &[Arc<Pod>], slices: &mut Vec<Arc<EndpointSlice>>| {
            let changes = reconcile(&service, pods, slices, |_| None);
            apply(slices, changes)
        };
        let sizes = |slices: &[Arc<EndpointSlice>]| -> Vec<usize> {
            slices
                .iter()
                .map(|slice| slice.endpoints.as_ref().unwrap().len())
                .collect()
        };
        step(&pods, &mut slices);
        assert_eq!(sizes(&slices), [100, 100, 50]);
        assert_eq!(step(&pods, &mut slices), 0, "settled");

        pods.remove(3);
        assert_eq!(step(&pods, &mut slices), 1, "one pod, one slice");
        assert_eq!(sizes(&slices), [99, 100, 50]);

        pods.push(pod(900));
        assert_eq!(step(&pods, &mut slices), 1);
        assert_eq!(
            sizes(&slices),
            [100, 100, 50],
            "into the fullest that has room"
        );

        pods.truncate(0);
        step(&pods, &mut slices);
        assert_eq!(slices.len(), 1, "one empty slice stays");
        assert_eq!(step(&pods, &mut slices), 0);
    }
}
