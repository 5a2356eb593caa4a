//! Endpoints packed into slices by the fewest changes to those that are there. Pure.
//!
//! Each slice has one family and one set of ports, and up to [`SLICE_MAX`] endpoints. A change
//! of one endpoint changes one slice: endpoints stay in the slice where they are, new ones go
//! first into slices that change anyway.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use peapod_api::labels::{MANAGED_BY, SERVICE_NAME};

use super::address::Family;

/// Endpoints of one slice, at most.
const SLICE_MAX: usize = 100;
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
pub(super) type Group = (Family, Vec<PortKey>);
pub(super) type PortKey = (String, i32, String, Option<String>);

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

pub(super) fn group(family: Family, ports: &[EndpointPort]) -> Group {
    let mut keys: Vec<_> = ports.iter().map(port_key).collect();
    keys.sort();
    (family, keys)
}

/// What identifies an endpoint from one look to the next: its address, and its pod if it has one.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|target| target.uid.as_deref());
    let address = endpoint.addresses.first().map(String::as_str);
    format!(
        "{}/{}",
        uid.unwrap_or_default(),
        address.unwrap_or_default()
    )
}

/// The endpoints of a group, each under what identifies it.
#[derive(Default)]
pub(super) struct Wanted {
    /// The ports that they share.
    pub ports: Vec<EndpointPort>,
    endpoints: BTreeMap<String, Endpoint>,
}

impl Wanted {
    /// None yet.
    pub fn on(ports: Vec<EndpointPort>) -> Self {
        let endpoints = BTreeMap::new();
        Self { ports, endpoints }
    }

    /// One more, if it is not there yet.
    pub fn add(&mut self, endpoint: Endpoint) {
        self.endpoints.insert(identity(&endpoint), endpoint);
    }
}

/// Whose slices they are, and what is the same in all of them.
pub(super) struct Owner<'a> {
    /// The service that they are of, and its namespace.
    pub service: (&'a str, &'a str),
    /// The object that they go with.
    pub reference: OwnerReference,
    /// Who manages them; slices of others are left alone.
    pub manager: &'static str,
    /// Labels that they inherit.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations that they inherit.
    pub annotations: BTreeMap<String, String>,
    /// Whether the service has no cluster address; `None` leaves the label as it is.
    pub headless: Option<bool>,
}

/// The changes that make `slices` hold what is wanted.
pub(super) fn reconcile(
    owner: &Owner<'_>,
    mut wanted: BTreeMap<Group, Wanted>,
    slices: &[Arc<EndpointSlice>],
) -> Changes {
    let mut changes = Changes::default();
    let mut existing: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| owner.manages(slice)) {
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
            Some(wanted) => pack(owner, group.0, wanted, slices, &mut changes),
            None => changes.delete.extend(slices.into_iter().cloned()),
        }
    }
    for ((family, _), wanted) in wanted {
        pack(owner, family, wanted, Vec::new(), &mut changes);
    }
    changes
}

/// Distributes the endpoints of one group over its slices.
fn pack(
    owner: &Owner<'_>,
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
        owner.dress(&mut changed, family, &wanted.ports, endpoints);
        if changed != **slice {
            changes.update.push((slice.clone(), changed));
        }
    }
    while !missing.is_empty() || !kept_any {
        let rest = missing.split_off(missing.len().min(SLICE_MAX));
        let mut slice = EndpointSlice::default();
        owner.dress(&mut slice, family, &wanted.ports, missing);
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

// === impl Owner ===

impl Owner<'_> {
    fn manages(&self, slice: &EndpointSlice) -> bool {
        let labels = slice.metadata.labels.as_ref();
        let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
        manager.is_some_and(|manager| manager == self.manager)
            && slice.metadata.deletion_timestamp.is_none()
    }

    /// Makes a slice what it should be, leaving labels and annotations of others alone.
    fn dress(
        &self,
        slice: &mut EndpointSlice,
        family: Family,
        ports: &[EndpointPort],
        endpoints: Vec<Endpoint>,
    ) {
        let (namespace, name) = self.service;
        if slice.metadata.name.is_none() {
            slice.metadata = ObjectMeta {
                namespace: Some(namespace.to_owned()),
                generate_name: Some(format!("{name}-")),
                owner_references: Some(vec![self.reference.clone()]),
                ..Default::default()
            };
            slice.address_type = family.name().to_owned();
            slice.ports = Some(ports.to_vec());
        }
        let labels = slice.metadata.labels.get_or_insert_default();
        labels.extend(self.labels.clone());
        labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
        labels.insert(MANAGED_BY.to_owned(), self.manager.to_owned());
        match self.headless {
            Some(true) => drop(labels.insert(HEADLESS.to_owned(), String::new())),
            Some(false) => drop(labels.remove(HEADLESS)),
            None => {}
        }
        if !self.annotations.is_empty() {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            annotations.extend(self.annotations.clone());
        }
        if slice.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice() {
            slice.endpoints = Some(endpoints);
        }
    }
}
