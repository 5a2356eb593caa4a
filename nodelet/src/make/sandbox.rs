//! What the containers of a pod share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use peapod_api::attach::{HostPort, PodRef, Protocol};
use peapod_api::k8s_openapi;

use super::resources;
use crate::core::spec_of;
use crate::runtime::{NamespaceMode, SandboxSpec};

/// Longest hostname that the kernel takes, bytes.
const HOSTNAME_MAX: usize = 63;

/// Which pod.
pub fn pod_ref(pod: &Pod) -> PodRef {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodRef {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
    }
}

/// `hostname` inside the pod, and its domain name if it has one: `hostname`, or the pod's name,
/// cut to what the kernel takes.
pub fn hostname(pod: &Pod, domain: &str) -> (String, Option<String>) {
    let spec = spec_of(pod);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let own = spec.hostname.as_deref().filter(|own| !own.is_empty());
    let cut: String = own.unwrap_or(name).chars().take(HOSTNAME_MAX).collect();
    let host = cut.trim_end_matches(['-', '.']).to_owned();
    if let Some(whole) = spec
        .hostname_override
        .as_deref()
        .filter(|whole| !whole.is_empty())
    {
        return (whole.to_owned(), None);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let sub = spec.subdomain.as_deref().filter(|sub| !sub.is_empty());
    let full = sub.map(|sub| format!("{host}.{sub}.{namespace}.svc.{domain}"));
    (host, full)
}

/// The name that the kernel is given.
fn kernel_hostname(pod: &Pod, domain: &str) -> String {
    let (host, full) = hostname(pod, domain);
    match full {
        Some(full) if spec_of(pod).set_hostname_as_fqdn == Some(true) => full,
        _ => host,
    }
}

/// What the kernel and `/etc/hostname` call the host that a pod is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node's host name.
    pub name: String,
    /// The machine has another.
    pub apart: bool,
}

/// What `/etc/hostname` says: with the host's network, what the host is called.
pub fn shown_hostname(pod: &Pod, domain: &str, host: &Host) -> String {
    match spec_of(pod).host_network {
        Some(true) => host.name.clone(),
        _ => hostname(pod, domain).0,
    }
}

/// The pod's namespaces and limits.
pub fn sandbox(pod: &Pod, domain: &str, host: &Host) -> SandboxSpec {
    let spec = spec_of(pod);
    let host_network = spec.host_network == Some(true);
    let shared = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Host,
        _ => NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Host,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let security = spec.security_context.as_ref();
    let sysctls = security
        .and_then(|s| s.sysctls.as_deref())
        .unwrap_or_default();
    SandboxSpec {
        pod: pod_ref(pod),
        hostname: match host_network {
            true => host.name.clone(),
            false => kernel_hostname(pod, domain),
        },
        network: shared(spec.host_network),
        own_hostname: host_network && host.apart,
        ipc: shared(spec.host_ipc),
        pid,
        own_users: spec.host_users == Some(false),
        sysctls: sysctls
            .iter()
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect(),
        qos: resources::qos_class(spec),
        resources: resources::pod(spec),
        runtime_handler: None,
        labels: BTreeMap::new(),
    }
}

/// Ports of the node that lead to the pod. With the host's network they are the pod's own.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let spec = spec_of(pod);
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(host_port)
        .collect()
}

fn host_port(port: &ContainerPort) -> Option<HostPort> {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let ip = port
        .host_ip
        .as_deref()
        .and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
    Some(HostPort {
        host_ip: ip.filter(|ip| !ip.is_unspecified()),
        host_port: u16::try_from(port.host_port?)
            .ok()
            .filter(|&number| number > 0)?,
        container_port: u16::try_from(port.container_port).ok()?,
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, spec: serde_json::Value) -> Pod {
        let value = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn hostnames() {
        let long = "a".repeat(62) + "-bc";
        let plain = pod(&long, json!({"containers": []}));
        assert_eq!(hostname(&plain, "cluster.local").0, "a".repeat(62));
        let sub = json!({"containers": [], "hostname": "h", "subdomain": "s",
            "setHostnameAsFQDN": true});
        let named = pod("p", sub);
        let full = "h.s.ns.svc.cluster.local";
        assert_eq!(
            hostname(&named, "cluster.local"),
            ("h".into(), Some(full.into()))
        );
        assert_eq!(
            sandbox(&named, "cluster.local", &node(false)).hostname,
            full
        );
    }

    fn node(apart: bool) -> Host {
        let name = "n1".to_owned();
        Host { name, apart }
    }

    #[test]
    fn with_the_hosts_network_its_name_shows() {
        let pod = pod("p", json!({"containers": [], "hostNetwork": true}));
        assert_eq!(shown_hostname(&pod, "cluster.local", &node(false)), "n1");
        let shared = sandbox(&pod, "cluster.local", &node(false));
        assert_eq!((shared.hostname.as_str(), shared.has_uts()), ("n1", false));
        assert!(sandbox(&pod, "cluster.local", &node(true)).has_uts());
    }

    #[test]
    fn ports_of_the_node() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": "0.0.0.0"},
            {"containerPort": 53, "protocol": "UDP"}]);
        let with = |host| {
            pod(
                "p",
                json!({"hostNetwork": host, "containers": [{"name": "a", "ports": ports}]}),
            )
        };
        let found = host_ports(&with(false));
        assert_eq!(
            (found.len(), found[0].host_port, found[0].host_ip),
            (1, 8080, None)
        );
        assert!(host_ports(&with(true)).is_empty());
    }
}
