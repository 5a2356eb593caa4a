//! The EndpointSlices that a service should have, by the fewest changes to those it has. Pure.
//!
//! Each slice has one family and one set of ports, and up to [`SLICE_MAX`] endpoints. A change
//! of one pod changes one slice: endpoints stay in the slice where they are, new ones go first
//! into slices that change anyway.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;
use peapod_api::labels::{MANAGED_BY, SERVICE_NAME};

use super::address::{self, Family};
use crate::common::owner;

/// Endpoints of one slice, at most.
const SLICE_MAX: usize = 100;
/// Who manages our slices; those of others are left alone.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of the slices of a service without a cluster address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to do.
#[derive(Debug, Default)]
pub struct Changes {
    /// Slices to create; the API names them.
    pub create: Vec<EndpointSlice>,
    /// Slices to change, as they are and as they should be.
    pub update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    /// Slices to delete.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// A family and a set of ports: what the endpoints of a slice share.
type Group = (Family, Vec<PortKey>);
type PortKey = (String, i32, String, Option<String>);

fn port_key(port: &EndpointPort) -> PortKey {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let number = port.port.unwrap_or(0);
    (
        text(&port.name),
        number,
        text(&port.protocol),
        port.app_protocol.clone(),
    )
}

fn group(family: Family, ports: &[EndpointPort]) -> Group {
    let mut keys: Vec<_> = ports.iter().map(port_key).collect();
    keys.sort();
    (family, keys)
}

/// What identifies an endpoint from one look to the next: its pod.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    target
        .and_then(|target| target.uid.clone())
        .unwrap_or_default()
}

struct Wanted {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<String, Endpoint>,
}

/// The changes that make `slices` what `pods` say; `zone_of` knows the zone of a node.
pub fn reconcile(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Changes {
    let mut wanted = wanted(service, pods, zone_of);
    let mut changes = Changes::default();
    let mut existing: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| is_ours(slice)) {
        let family = match slice.address_type.as_str() {
            "IPv6" => Family::V6,
            _ => Family::V4,
        };
        let ports = slice.ports.as_deref().unwrap_or_default();
        existing
            .entry(group(family, ports))
            .or_default()
            .push(slice);
    }
    for (group, slices) in existing {
        match wanted.remove(&group) {
            Some(wanted) => pack(service, group.0, wanted, slices, &mut changes),
            None => changes.delete.extend(slices.into_iter().cloned()),
        }
    }
    for ((family, _), wanted) in wanted {
        pack(service, family, wanted, Vec::new(), &mut changes);
    }
    changes
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    manager.is_some_and(|manager| manager == MANAGER) && slice.metadata.deletion_timestamp.is_none()
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
            let group = wanted
                .entry(group(family, &ports))
                .or_insert_with(|| Wanted {
                    ports,
                    endpoints: BTreeMap::new(),
                });
            group.endpoints.insert(identity(&endpoint), endpoint);
        }
        if !any {
            let empty = Wanted {
                ports: Vec::new(),
                endpoints: BTreeMap::new(),
            };
            wanted.insert(group(family, &[]), empty);
        }
    }
    wanted
}

/// Distributes the endpoints of one group over its slices.
fn pack(
    service: &Service,
    family: Family,
    wanted: Wanted,
    slices: Vec<&Arc<EndpointSlice>>,
    changes: &mut Changes,
) {
    let mut missing = wanted.endpoints;
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let here = slice.endpoints.iter().flatten();
        // Taking it out of `missing` also drops it from every further slice.
        let stay = here.filter_map(|endpoint| missing.remove(&identity(endpoint)));
        kept.push((slice, stay.take(SLICE_MAX).collect()));
    }
    let mut missing: Vec<Endpoint> = missing.into_values().collect();
    missing.sort_by(|a, b| pod_name(a).cmp(&pod_name(b)));
    fill(&mut kept, &mut missing);
    let mut kept_any = kept.iter().any(|(_, endpoints)| !endpoints.is_empty());
    for (slice, endpoints) in kept {
        // Of empty slices one remains when there is nothing else.
        if endpoints.is_empty() && (kept_any || !missing.is_empty()) {
            changes.delete.push(slice.clone());
            continue;
        }
        kept_any = true;
        let mut changed = EndpointSlice::clone(slice);
        dress(&mut changed, service, family, &wanted.ports, endpoints);
        if changed != **slice {
            changes.update.push((slice.clone(), changed));
        }
    }
    while !missing.is_empty() || !kept_any {
        let rest = missing.split_off(missing.len().min(SLICE_MAX));
        let mut slice = EndpointSlice::default();
        dress(&mut slice, service, family, &wanted.ports, missing);
        changes.create.push(slice);
        missing = rest;
        kept_any = true;
    }
}

fn pod_name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}

/// Puts missing endpoints into slices with room: first those that change anyway, fullest first;
/// then, if one slice takes all the rest, the fullest such.
fn fill(kept: &mut [(&Arc<EndpointSlice>, Vec<Endpoint>)], missing: &mut Vec<Endpoint>) {
    let changes = |slice: &EndpointSlice, endpoints: &[Endpoint]| {
        slice.endpoints.as_deref().unwrap_or_default() != endpoints
    };
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(kept[at].1.len()));
    for &at in &order {
        let (slice, endpoints) = &mut kept[at];
        if changes(slice, endpoints) {
            let room = SLICE_MAX - endpoints.len();
            endpoints.extend(missing.drain(..room.min(missing.len())));
        }
    }
    let fits = |at: &&usize| kept[**at].1.len() + missing.len() <= SLICE_MAX;
    if !missing.is_empty()
        && let Some(&at) = order.iter().find(fits)
    {
        kept[at].1.append(missing);
    }
}

/// Makes a slice what it should be, leaving labels and annotations of others alone.
fn dress(
    slice: &mut EndpointSlice,
    service: &Service,
    family: Family,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) {
    let name = service.metadata.name.clone().unwrap_or_default();
    if slice.metadata.name.is_none() {
        slice.metadata = ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            generate_name: Some(format!("{name}-")),
            owner_references: Some(vec![owner::controller_reference(service)]),
            ..Default::default()
        };
        slice.address_type = family.name().to_owned();
        slice.ports = Some(ports.to_vec());
    }
    let labels = slice.metadata.labels.get_or_insert_default();
    let inherited = service.metadata.labels.iter().flatten();
    labels.extend(inherited.map(|(name, value)| (name.clone(), value.clone())));
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    match address::is_headless(service) {
        true => labels.insert(HEADLESS.to_owned(), String::new()),
        false => labels.remove(HEADLESS),
    };
    if slice.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice() {
        slice.endpoints = Some(endpoints);
    }
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
