//! Endpoints: the legacy form of EndpointSlices, one object per service, one family.
//!
//! The core is [`subsets`]; what a pod adds comes from [`crate::endpointslice::address`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use kube::api::ObjectMeta;
use peapod_api::labels::SERVICE_NAME;

use crate::common::{Key, pods};
use crate::endpointslice::{address, pack::HEADLESS, selected, services_of};
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "endpoint";
/// Addresses of one object, at most; EndpointSlices have all of them.
const ADDRESSES_MAX: usize = 1000;
/// Annotation: there are more addresses than are shown.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Label: who manages the object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

struct Legacy(Context);

/// Wires the loop; its keys are services.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.services)
        .on_self(&ctx.informers.endpoints)
        .on(&ctx.informers.pods, move |change| {
            services_of(&informers, change)
        })
        .run(tasks, Legacy(ctx.clone()));
}

/// The subsets, and whether they are cut short.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = address::first_family(service);
    let unready_too = address::publishes_unready(service);
    let mut groups: BTreeMap<Vec<(String, i32, String)>, EndpointSubset> = BTreeMap::new();
    let mut count = 0;
    for pod in pods
        .iter()
        .filter(|pod| unready_too || !pods::is_terminating(pod))
    {
        let Some(ip) = address::addresses(pod, family).into_iter().next() else {
            continue;
        };
        count += 1;
        if count > ADDRESSES_MAX {
            continue;
        }
        let ports = address::ports(service, pod)
            .into_iter()
            .map(|port| EndpointPort {
                name: port.name.filter(|name| !name.is_empty()),
                port: port.port.unwrap_or(0),
                protocol: port.protocol,
                app_protocol: port.app_protocol,
            });
        let mut ports: Vec<_> = ports.collect();
        let key = |port: &EndpointPort| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            (text(&port.name), port.port, text(&port.protocol))
        };
        ports.sort_by_key(key);
        let group = groups.entry(ports.iter().map(key).collect()).or_default();
        group.ports = (!ports.is_empty()).then_some(ports);
        let node = pods::node_name(pod);
        let list = match unready_too || pods::is_ready(pod) {
            true => &mut group.addresses,
            false => &mut group.not_ready_addresses,
        };
        list.get_or_insert_default().push(EndpointAddress {
            ip,
            hostname: address::hostname(service, pod),
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            target_ref: Some(address::target_ref(pod)),
        });
    }
    (groups.into_values().collect(), count > ADDRESSES_MAX)
}

/// The object that should be, made from the one that is.
fn endpoints(old: Option<&Endpoints>, service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let (subsets, cut) = subsets(service, pods);
    let mut new = old.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
            ..Default::default()
        },
        subsets: None,
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(SERVICE_NAME);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if address::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    new.metadata.labels = Some(labels);
    let mut annotations = new.metadata.annotations.take().unwrap_or_default();
    match cut {
        true => annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned()),
        false => annotations.remove(OVER_CAPACITY),
    };
    new.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    if new.subsets.as_deref().unwrap_or_default() != subsets.as_slice() {
        new.subsets = Some(subsets);
    }
    new
}

impl Controller for Legacy {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let old = informers.endpoints.get(key);
        let Some(service) = informers.services.get(key) else {
            return self.forsake(old.as_deref()).await;
        };
        if !address::is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let new = endpoints(old.as_deref(), &service, &selected(informers, &service));
        let written = match &old {
            Some(old) => write::update(&self.0, &**old, &new).await.map(drop),
            None => write::create(&self.0, &new).await.map(drop),
        };
        match written {
            // The watch brings what is there already, and wakes this again.
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
            result => result?,
        }
        Ok(Outcome::Done)
    }
}

impl Legacy {
    /// Deletes the object of a service that is gone, if it is ours.
    async fn forsake(&self, old: Option<&Endpoints>) -> Result<Outcome> {
        let ours = old.filter(|old| {
            let labels = old.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(MANAGED_BY))
                .is_some_and(|by| by == MANAGER)
        });
        if let Some(ours) = ours {
            write::delete::<Endpoints>(&self.0, &ours.metadata).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};
    use serde_json::json;

    #[test]
    fn golden_cases() {
        golden("endpoints", |input| {
            let service: Service = objects(input, "Service").remove(0);
            let pods: Vec<_> = objects(input, "Pod").into_iter().map(Arc::new).collect();
            let made = endpoints(None, &service, &pods);
            let lines = made
                .subsets
                .iter()
                .flatten()
                .map(|s| serde_json::to_string(s).unwrap());
            lines.collect::<Vec<_>>().join("\n")
        });
    }

    #[test]
    fn beyond_a_thousand_it_says_so() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
        }))
        .unwrap();
        let pod = |number: usize| {
            let pod = json!({"metadata": {"name": format!("p{number}")},
                "status": {"podIPs": [{"ip": format!("10.0.{}.{}", number / 256, number % 256)}]}});
            Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let pods: Vec<_> = (0..1001).map(pod).collect();
        let made = endpoints(None, &service, &pods);
        assert_eq!(
            made.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY],
            "truncated"
        );
        let unready = made.subsets.as_ref().unwrap()[0]
            .not_ready_addresses
            .as_ref()
            .unwrap();
        assert_eq!(unready.len(), ADDRESSES_MAX);
        let fewer = endpoints(Some(&made), &service, &pods[..3]);
        assert_eq!(fewer.metadata.annotations, None);
    }
}
