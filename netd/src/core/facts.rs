//! What this node must know of Services and EndpointSlices, and no more: the objects
//! themselves are ten times as large.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use peapod_api::attach::Protocol;
use peapod_api::{k8s_openapi, labels};

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// Labels of Services that kube-proxy, and so this node, leaves to others.
const OTHER_PROXY: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

/// A Service's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// Its name, empty for an only port.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on every node.
    pub node_port: Option<u16>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// `spec.clusterIPs`; none for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether it asks for no cluster address.
    pub headless: bool,
    /// `spec.externalIPs` and the load balancer's addresses: where it is reached from outside.
    pub external_ips: Vec<IpAddr>,
    /// Name outside of the cluster that it stands for.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<PortFacts>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity_s: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Its labels leave it to another proxy; only names are ours to serve.
    pub other_proxy: bool,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// Its address; consumers use the first only.
    pub ip: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, though it may be about to go.
    pub serving: bool,
    /// Is about to go.
    pub terminating: bool,
    /// Where it runs.
    pub node: Option<String>,
    /// Its own name below the service's.
    pub hostname: Option<String>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Its ports, by name.
    pub ports: Vec<PortFacts>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointFacts>,
}

fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|&port| port != 0)
}

fn addresses(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for ip in texts.into_iter().filter_map(|text| text.parse().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

impl ServiceFacts {
    /// Reads a Service. Values that the API server would have refused are passed over.
    pub fn of(service: &Service) -> Option<(ServiceKey, Self)> {
        let key = ServiceKey {
            namespace: service.metadata.namespace.clone()?,
            name: service.metadata.name.clone()?,
        };
        let spec = service.spec.as_ref()?;
        let cluster_ips = match &spec.cluster_ips {
            Some(ips) if !ips.is_empty() => ips.clone(),
            _ => spec.cluster_ip.clone().into_iter().collect(),
        };
        let is_external_name = spec.type_.as_deref() == Some("ExternalName");
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let config = spec.session_affinity_config.as_ref();
        let timeout = config
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok());
        let mut external = spec.external_ips.clone().unwrap_or_default();
        external.extend(balancer_ips(service));
        let mut labels = service.metadata.labels.iter().flatten();
        let facts = ServiceFacts {
            headless: cluster_ips.iter().any(|ip| ip == "None"),
            cluster_ips: addresses(cluster_ips),
            external_ips: addresses(external),
            external_name: spec.external_name.clone().filter(|_| is_external_name),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(service_port)
                .collect(),
            affinity_s: affinity.then(|| timeout.unwrap_or(DEFAULT_AFFINITY_S)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            other_proxy: labels.any(|(label, _)| OTHER_PROXY.contains(&label.as_str())),
        };
        Some((key, facts))
    }

    /// Whether a family's addresses stand for the service.
    pub fn has_family(&self, v4: bool) -> bool {
        self.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4)
    }
}

/// Load balancer addresses that are served on the nodes (`ipMode: VIP`, the default).
fn balancer_ips(service: &Service) -> impl Iterator<Item = String> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.clone())
}

fn service_port(port: &ServicePort) -> Option<PortFacts> {
    Some(PortFacts {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref()),
        port: port_number(port.port)?,
        node_port: port.node_port.and_then(port_number),
    })
}

impl SliceFacts {
    /// Reads an EndpointSlice; `None` for one that belongs to no service or lists names.
    pub fn of(slice: &EndpointSlice) -> Option<(String, Self)> {
        let labels = slice.metadata.labels.as_ref()?;
        let service = ServiceKey {
            namespace: slice.metadata.namespace.clone()?,
            name: labels.get(labels::SERVICE_NAME)?.clone(),
        };
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(PortFacts {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()),
                port: port_number(port.port?)?,
                node_port: None,
            })
        });
        let facts = SliceFacts {
            service,
            ports: ports.collect(),
            endpoints: slice
                .endpoints
                .iter()
                .flatten()
                .filter_map(endpoint)
                .collect(),
        };
        Some((slice.metadata.name.clone()?, facts))
    }
}

fn endpoint(endpoint: &Endpoint) -> Option<EndpointFacts> {
    let conditions = endpoint.conditions.as_ref();
    // The API: a missing `ready` or `serving` counts as true, `terminating` as false.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    Some(EndpointFacts {
        ip: endpoint.addresses.first()?.parse().ok()?,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        node: endpoint.node_name.clone(),
        hostname: endpoint.hostname.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_leaves_a_service_to_another_proxy() {
        let left = |label: &str| {
            let service = serde_json::json!({
                "metadata": {"namespace": "a", "name": "b", "labels": {label: ""}},
                "spec": {"clusterIP": "10.96.0.7"},
            });
            let service: Service = serde_json::from_value(service).unwrap();
            ServiceFacts::of(&service).unwrap().1.other_proxy
        };
        assert!(left("service.kubernetes.io/service-proxy-name"));
        assert!(left("service.kubernetes.io/headless"));
        assert!(!left("app"));
    }
}
