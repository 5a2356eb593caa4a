//! EndpointSlices of services with a selector, and what the legacy Endpoints share with them.
//!
//! [`address`] says what a pod adds, [`core`] which slices should be, [`pack`] by which changes,
//! [`trigger`] says since when, [`scribe`] writes them; [`mirror`] does the same for Endpoints that somebody wrote by hand.

pub mod address;
pub mod core;
mod mirror;
pub mod pack;
mod scribe;
mod trigger;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use peapod_api::labels::ZONE;
use peapod_api::selector::Selector;

use self::scribe::{Scribe, Seen};
use crate::common::{Key, pods};
use crate::shell::context::Informers;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks};

const NAME: &str = "endpoint_slice";

struct Slices(Scribe);

/// Wires the loop; its keys are services.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let (of_pods, of_nodes) = (ctx.informers.clone(), ctx.informers.clone());
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.services)
        .on(&ctx.informers.pods, move |change| {
            services_of(&of_pods, change)
        })
        .on(&ctx.informers.endpoint_slices, |change| {
            let service = change.latest().and_then(core_service);
            service.map(|name| Key::new(&change.key.namespace, name))
        })
        .on(&ctx.informers.nodes, move |change| {
            let zone = |node: Option<&Arc<_>>| node.and_then(|node| zone(node));
            let moved = zone(change.old.as_ref()) != zone(change.new.as_ref());
            let services = if moved {
                of_nodes.services.all()
            } else {
                Vec::new()
            };
            services.into_iter().map(|service| Key::of(&*service))
        })
        .run(tasks, Slices(Scribe::new(ctx)));
    mirror::start(ctx, tasks);
}

fn core_service(slice: &EndpointSlice) -> Option<String> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(peapod_api::labels::SERVICE_NAME).cloned()
}

fn zone(node: &k8s_openapi::api::core::v1::Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

/// The services that select a changed pod, before or after, if the change can matter to them.
pub(crate) fn services_of(informers: &Informers, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && same_to_services(old, new)
    {
        return Vec::new();
    }
    let services = informers.services.in_namespace(&change.key.namespace);
    let selecting = services.iter().filter(|service| {
        let selector = selector(service);
        change.both().any(|pod| selects(&selector, pod))
    });
    selecting.map(|service| Key::of(&**service)).collect()
}

fn same_to_services(old: &Pod, new: &Pod) -> bool {
    let ips = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.pod_ips.clone())
    };
    let spec = |pod: &Pod| {
        pod.spec
            .as_ref()
            .map(|s| (s.hostname.clone(), s.subdomain.clone()))
    };
    let flags = |pod: &Pod| {
        (
            pods::is_ready(pod),
            pods::is_terminating(pod),
            pods::is_finished(pod),
        )
    };
    old.metadata.labels == new.metadata.labels
        && old.metadata.uid == new.metadata.uid
        && flags(old) == flags(new)
        && pods::node_name(old) == pods::node_name(new)
        && ips(old) == ips(new)
        && spec(old) == spec(new)
}

fn selector(service: &Service) -> Selector {
    match address::is_selecting(service) {
        true => Selector::from_map(
            service
                .spec
                .iter()
                .flat_map(|s| s.selector.iter().flatten()),
        ),
        false => Selector::nothing(),
    }
}

fn selects(selector: &Selector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|labels| selector.matches(labels))
}

/// The pods that a service selects, by name.
pub(crate) fn selected(informers: &Informers, service: &Service) -> Vec<Arc<Pod>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let (selector, mut pods) = (selector(service), informers.pods.in_namespace(namespace));
    pods.retain(|pod| selects(&selector, pod));
    pods
}

impl Controller for Slices {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.ctx.informers;
        let service = informers.services.get(key);
        let Some(service) = service.filter(|service| address::is_selecting(service)) else {
            // The garbage collector takes the slices of a service that is gone.
            self.0.forget(key);
            return Ok(Outcome::Done);
        };
        let slices = match self.0.slices(key) {
            Seen::All(slices) => slices,
            Seen::Stale(wait) => return Ok(Outcome::After(wait)),
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let pods = selected(informers, &service);
        let zone_of = |node: &str| {
            informers
                .nodes
                .get(&Key::cluster(node))
                .and_then(|n| zone(&n))
        };
        let mut changes = core::reconcile(&service, &pods, &slices, zone_of);
        trigger::stamp(&mut changes, &service, &pods, &slices);
        self.0.carry_out(key, changes).await?;
        Ok(Outcome::Done)
    }
}
