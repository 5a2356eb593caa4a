//! EndpointSlices of services without a selector: the Endpoints that somebody wrote for them,
//! mirrored. Upstream calls the loop `endpointslicemirroring-controller`.
//!
//! The core is [`reconcile`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use peapod_api::labels::{LAST_CHANGE_TRIGGER, MANAGED_BY, SERVICE_NAME};

use super::address::{self, Family};
use super::pack::{self, Changes, Group, Owner, Wanted, group};
use super::scribe::{Scribe, Seen};
use crate::common::{Key, owner};
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks};

const NAME: &str = "endpoint_slice_mirroring_controller";
const COMPONENT: &str = "endpoint-slice-mirroring-controller";
/// Who manages our slices; those of others are left alone.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one subset that are mirrored, at most.
const ADDRESSES_MAX: usize = 1000;
/// Label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are no endpoints but an old form of a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are of the Endpoints object alone.
const OWN_ANNOTATIONS: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    LAST_CHANGE_TRIGGER,
];

struct Mirror(Scribe);

/// Wires the loop; its keys are services, and so the Endpoints of the same name.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.services)
        .on_self(&ctx.informers.endpoints)
        .on(&ctx.informers.endpoint_slices, |change| {
            let slice = change.latest().filter(|slice| is_mirror(slice));
            let labels = slice.and_then(|slice| slice.metadata.labels.as_ref());
            let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
            service.map(|name| Key::new(&change.key.namespace, name.clone()))
        })
        .run(tasks, Mirror(Scribe::new(ctx)));
}

fn is_mirror(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    manager.is_some_and(|manager| manager == MANAGER)
}

/// Whether Endpoints want to be mirrored.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|labels| labels.get(SKIP));
    let annotations = meta.annotations.as_ref();
    let locks = annotations.is_some_and(|annotations| annotations.contains_key(LEADER));
    meta.deletion_timestamp.is_none() && skips.is_none_or(|skips| skips != "true") && !locks
}

/// The changes that make `slices` mirror the Endpoints, and how many addresses are left out.
fn reconcile(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> (Changes, usize) {
    let meta = &endpoints.metadata;
    let none = BTreeMap::new();
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    let owner = Owner {
        service: (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        reference: owner::controller_reference(endpoints),
        manager: MANAGER,
        labels: meta.labels.as_ref().unwrap_or(&none),
        annotations,
        headless: None,
    };
    let (mut wanted, mut left_out) = (BTreeMap::new(), 0);
    for subset in endpoints.subsets.iter().flatten() {
        left_out += gather(subset, &mut wanted);
    }
    (pack::reconcile(&owner, wanted, slices), left_out)
}

/// Adds a subset's addresses to the groups that they belong to; how many are left out.
fn gather(subset: &EndpointSubset, wanted: &mut BTreeMap<Group, Wanted>) -> usize {
    let ports = ports(subset);
    let addresses = |list: &Option<Vec<EndpointAddress>>, ready| {
        let list = list.clone().unwrap_or_default().into_iter();
        list.map(move |address| (address, ready))
    };
    let ready = addresses(&subset.addresses, true);
    let mut all: Vec<_> = ready
        .chain(addresses(&subset.not_ready_addresses, false))
        .collect();
    let left_out = all.len().saturating_sub(ADDRESSES_MAX);
    all.truncate(ADDRESSES_MAX);
    for (address, ready) in all {
        let family = Family::of(&address.ip);
        let wanted = wanted.entry(group(family, &ports));
        wanted
            .or_insert_with(|| Wanted::on(ports.clone()))
            .add(endpoint(address, ready));
    }
    left_out
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten();
    ports
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn endpoint(address: EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..Default::default()
        }),
        hostname: address.hostname,
        node_name: address.node_name,
        target_ref: address.target_ref,
        ..Default::default()
    }
}

impl Controller for Mirror {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.ctx.informers;
        let mut slices = match self.0.slices(key) {
            Seen::All(slices) => slices,
            Seen::Stale(wait) => return Ok(Outcome::After(wait)),
        };
        slices.retain(|slice| is_mirror(slice));
        let service = informers.services.get(key).filter(|service| {
            !address::is_selecting(service) && service.metadata.deletion_timestamp.is_none()
        });
        let endpoints = informers.endpoints.get(key);
        let endpoints = endpoints.filter(|endpoints| service.is_some() && is_mirrored(endpoints));
        let Some(endpoints) = endpoints else {
            let changes = Changes {
                delete: slices,
                ..Changes::default()
            };
            self.0.carry_out(key, changes).await?;
            return Ok(Outcome::Done);
        };
        let (changes, left_out) = reconcile(&endpoints, &slices);
        if left_out > 0 {
            let text =
                format!("{left_out} addresses are not mirrored: a subset may have {ADDRESSES_MAX}");
            let note = Note::warning("TooManyAddressesToMirror", text);
            self.0.ctx.events.record(COMPONENT, &*endpoints, note);
        }
        self.0.carry_out(key, changes).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(subsets: Value) -> Endpoints {
        let object = json!({
            "metadata": {
                "name": "db", "namespace": "d", "uid": "e", "labels": {"team": "a"},
                "annotations": {
                    "note": "kept",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                },
            },
            "subsets": subsets,
        });
        serde_json::from_value(object).unwrap()
    }

    fn created(subsets: Value) -> Vec<EndpointSlice> {
        reconcile(&endpoints(subsets), &[]).0.create
    }

    #[test]
    fn a_slice_for_each_family_and_set_of_ports() {
        let slices = created(json!([
            {
                "addresses": [{"ip": "192.0.2.1", "hostname": "one"}, {"ip": "2001:db8::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"name": "sql", "port": 5432}],
            },
            {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "UDP"}]},
        ]));
        let shown: Vec<String> = slices
            .iter()
            .map(|slice| {
                let port = &slice.ports.as_ref().unwrap()[0];
                let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
                    let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
                    format!("{}={ready}", endpoint.addresses[0])
                });
                let endpoints: Vec<_> = endpoints.collect();
                let protocol = port.protocol.as_deref().unwrap();
                format!(
                    "{} {}/{protocol} {}",
                    slice.address_type,
                    port.port.unwrap(),
                    endpoints.join(" ")
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "IPv4 80/UDP 192.0.2.1=true",
                "IPv4 5432/TCP 192.0.2.1=true 192.0.2.2=false",
                "IPv6 5432/TCP 2001:db8::1=true",
            ]
        );
        let meta = &slices[0].metadata;
        let labels = meta.labels.as_ref().unwrap();
        assert_eq!(labels["team"], "a");
        assert_eq!(labels[SERVICE_NAME], "db");
        assert_eq!(labels[MANAGED_BY], MANAGER);
        let annotations: Vec<_> = meta.annotations.as_ref().unwrap().keys().collect();
        assert_eq!(annotations, ["note"]);
        assert_eq!(meta.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
    }

    #[test]
    fn another_address_changes_the_slice_that_is_there() {
        let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]);
        let mut slice = created(subsets("192.0.2.1")).remove(0);
        slice.metadata.name = Some("db-1".to_owned());
        let (changes, _) = reconcile(&endpoints(subsets("192.0.2.9")), &[Arc::new(slice.clone())]);
        assert!(changes.create.is_empty() && changes.delete.is_empty());
        let (_, new) = &changes.update[0];
        assert_eq!(new.endpoints.as_ref().unwrap()[0].addresses, ["192.0.2.9"]);
        let (changes, _) = reconcile(&endpoints(json!([])), &[Arc::new(slice)]);
        assert_eq!(changes.delete.len(), 1, "no address, no slice");
    }

    #[test]
    fn a_bound_on_addresses_and_what_is_not_mirrored() {
        let many: Vec<_> = (0..1200)
            .map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)}))
            .collect();
        let (changes, left_out) = reconcile(&endpoints(json!([{"addresses": many}])), &[]);
        assert_eq!((changes.create.len(), left_out), (10, 200));
        let mut skipped = endpoints(json!([]));
        assert!(is_mirrored(&skipped));
        let labels = skipped.metadata.labels.as_mut().unwrap();
        labels.insert(SKIP.to_owned(), "true".to_owned());
        assert!(!is_mirrored(&skipped));
    }
}
