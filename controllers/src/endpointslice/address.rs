//! What a pod adds to a service: addresses, ports, conditions. Pure.

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::common::pods;

/// An address family, as `addressType` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// The name in `addressType` and `ipFamilies`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    pub fn of(address: &str) -> Self {
        if address.contains(':') {
            Self::V6
        } else {
            Self::V4
        }
    }
}

/// The families of a service, its first one first.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let families: Vec<_> = named
        .iter()
        .map(|name| {
            if name == "IPv6" {
                Family::V6
            } else {
                Family::V4
            }
        })
        .collect();
    if !families.is_empty() {
        return families;
    }
    let cluster_ip = spec
        .and_then(|spec| spec.cluster_ip.as_deref())
        .unwrap_or_default();
    vec![Family::of(cluster_ip)]
}

/// The family that the legacy form shows.
pub fn first_family(service: &Service) -> Family {
    families(service).first().copied().unwrap_or(Family::V4)
}

/// Whether the endpoints of a service are made from pods: it has a selector and is no alias.
pub fn is_selecting(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        let selector = spec.selector.as_ref();
        spec.type_.as_deref() != Some("ExternalName") && selector.is_some_and(|s| !s.is_empty())
    })
}

/// Whether a service has no cluster address of its own.
pub fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether a service wants addresses of pods that are not ready.
pub fn publishes_unready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pod's addresses of a family; none once it has run to its end.
pub fn addresses(pod: &Pod, family: Family) -> Vec<String> {
    if pods::is_finished(pod) {
        return Vec::new();
    }
    let ips = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    ips.map(|ip| ip.ip.clone())
        .filter(|ip| Family::of(ip) == family)
        .collect()
}

/// The service's ports on a pod; a named target that the pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(protocol(port).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port's number on a pod.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    let found = ports.into_iter().find(|candidate| {
        candidate.name.as_ref() == Some(name)
            && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port)
    });
    found.map(|found| found.container_port)
}

/// The name that DNS gives the pod within the service, if it has one.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    let subdomain = spec.subdomain.as_ref();
    (subdomain == service.metadata.name.as_ref()).then_some(hostname)
}

/// A reference to a pod.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// The endpoint that a pod is; `zone` is its node's.
pub fn endpoint(service: &Service, pod: &Pod, family: Family, zone: Option<String>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let node = pods::node_name(pod);
    Endpoint {
        addresses: addresses(pod, family),
        conditions: Some(EndpointConditions {
            ready: Some(publishes_unready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(target_ref(pod)),
        zone,
        ..Default::default()
    }
}
