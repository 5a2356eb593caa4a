//! The Node object, made from configuration and facts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use peapod_api::quantity::Quantity;
use peapod_api::{k8s_openapi, labels};

use super::facts::Facts;
use crate::config::Config;
use crate::devices::pool::Counts;
use crate::runtime::{Image, RuntimeInfo};

/// The version of the Kubernetes API that this node speaks, which clients look for.
pub const KUBELET_VERSION: &str = "v1.37.0";
/// Memory that is not given to pods, so that pressure is seen before the kernel kills, bytes.
const MEMORY_MARGIN_BYTES: u64 = 100 << 20;
/// Most images in the status.
const IMAGES_MAX: usize = 50;
/// Most names of one image.
const NAMES_MAX: usize = 5;

type Resources = BTreeMap<String, Text>;

fn bytes(amount: u64) -> Text {
    Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX)).to_text()
}

/// All that the node has.
pub fn capacity(facts: &Facts, max_pods: u32) -> Resources {
    let mut all = Resources::from([
        (
            "cpu".to_owned(),
            Quantity::from_units(facts.cpus.into()).to_text(),
        ),
        ("memory".to_owned(), bytes(facts.memory_bytes)),
        ("ephemeral-storage".to_owned(), bytes(facts.disk_bytes)),
        (
            "pods".to_owned(),
            Quantity::from_units(max_pods.into()).to_text(),
        ),
    ]);
    let pages = facts.hugepages.iter();
    all.extend(pages.map(|(size, amount)| (format!("hugepages-{size}"), bytes(*amount))));
    all
}

/// What pods may have of it.
pub fn allocatable(
    facts: &Facts,
    max_pods: u32,
    reserved: &BTreeMap<String, String>,
    reserved_cpus: usize,
) -> Resources {
    let mut all = capacity(facts, max_pods);
    let cpus = usize::try_from(facts.cpus).unwrap_or(0);
    let cpus = i64::try_from(cpus.saturating_sub(reserved_cpus)).unwrap_or(0);
    all.insert("cpu".to_owned(), Quantity::from_units(cpus).to_text());
    let memory = facts.memory_bytes.saturating_sub(MEMORY_MARGIN_BYTES);
    all.insert("memory".to_owned(), bytes(memory));
    all.insert(
        "ephemeral-storage".to_owned(),
        bytes(facts.disk_bytes / 10 * 9),
    );
    for (name, amount) in reserved {
        let less = amount.parse::<Quantity>().ok();
        let has = all.get(name).and_then(|text| Quantity::try_from(text).ok());
        if let (Some(has), Some(less)) = (has, less) {
            let left = has.minus(less).max(Quantity::from_units(0));
            all.insert(name.clone(), left.to_text());
        }
    }
    all
}

/// A status with the devices that plugins bring; those that are gone are none, for what is not said
/// stays in the API.
pub fn with_devices(mut status: NodeStatus, counts: &Counts) -> NodeStatus {
    for (name, (all, well)) in counts {
        let number =
            |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX)).to_text();
        let capacity = status.capacity.get_or_insert_default();
        capacity.insert(name.clone(), number(*all));
        let allocatable = status.allocatable.get_or_insert_default();
        allocatable.insert(name.clone(), number(*well));
    }
    status
}

/// A status with the extended resources that somebody else advertises, by writing them to the
/// capacity: all of them may be allocated (Kubernetes' "Advertise Extended Resources for a Node").
pub fn with_advertised(mut status: NodeStatus, known: &NodeStatus, own: &Counts) -> NodeStatus {
    let foreign = |name: &str| is_extended(name) && !own.contains_key(name);
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.retain(|name, _| !foreign(name));
    for (name, amount) in known.capacity.iter().flatten() {
        if foreign(name) {
            allocatable.insert(name.clone(), amount.clone());
        }
    }
    status
}

/// Resources with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let domain = name.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| !domain.ends_with("kubernetes.io"))
}

/// The Node without its conditions and images.
pub fn node(config: &Config, facts: &Facts, runtime: &RuntimeInfo, port: Option<u16>) -> Node {
    let arch = facts.architecture.clone();
    let own = [
        (labels::HOSTNAME, config.node_name.as_str()),
        (labels::ARCH, &arch),
        (labels::OS, "linux"),
        ("beta.kubernetes.io/arch", &arch),
        ("beta.kubernetes.io/os", "linux"),
    ];
    let mut all = config.labels.clone();
    all.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(all),
            ..ObjectMeta::default()
        },
        spec: (!config.taints.is_empty()).then(|| NodeSpec {
            taints: Some(config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status(config, facts, runtime, port)),
    }
}

fn status(config: &Config, facts: &Facts, runtime: &RuntimeInfo, port: Option<u16>) -> NodeStatus {
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    let ips = config
        .node_ips
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()));
    let name = address("Hostname", config.node_name.clone());
    NodeStatus {
        addresses: Some(ips.chain([name]).collect()),
        capacity: Some(capacity(facts, config.max_pods)),
        allocatable: Some(allocatable(
            facts,
            config.max_pods,
            &config.reserved,
            config.kubelet.reserved_system_cpus.0.len(),
        )),
        daemon_endpoints: port.map(|port| NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: facts.architecture.clone(),
            boot_id: facts.boot_id.clone(),
            container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
            kernel_version: facts.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: facts.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: facts.os_image.clone(),
            system_uuid: facts.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        runtime_handlers: Some(handlers(runtime)),
        ..NodeStatus::default()
    }
}

/// The OCI runtimes that a RuntimeClass may name; the first, without a name, is the default.
fn handlers(runtime: &RuntimeInfo) -> Vec<NodeRuntimeHandler> {
    let names = std::iter::once(String::new()).chain(runtime.handlers.iter().cloned());
    names
        .map(|name| NodeRuntimeHandler {
            name: Some(name),
            features: Some(NodeRuntimeHandlerFeatures {
                user_namespaces: Some(runtime.user_namespaces),
                ..NodeRuntimeHandlerFeatures::default()
            }),
        })
        .collect()
}

/// The images for the status, the largest first.
pub fn images(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    let shown = images.into_iter().take(IMAGES_MAX);
    shown
        .map(|image| ContainerImage {
            names: Some(image.references.into_iter().take(NAMES_MAX).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_advertise_may_be_allocated() {
        let resources = |all: &[(&str, &str)]| -> Option<Resources> {
            let all = all.iter();
            Some(
                all.map(|(name, amount)| ((*name).to_owned(), Text((*amount).to_owned())))
                    .collect(),
            )
        };
        let own = NodeStatus {
            allocatable: resources(&[("cpu", "2"), ("a.io/gpu", "1"), ("b.io/gone", "5")]),
            ..NodeStatus::default()
        };
        let known = NodeStatus {
            capacity: resources(&[("cpu", "4"), ("a.io/gpu", "9"), ("b.io/foo", "3")]),
            ..NodeStatus::default()
        };
        let devices = Counts::from([("a.io/gpu".to_owned(), (1, 1))]);
        let found = with_advertised(own, &known, &devices);
        let wanted = resources(&[("cpu", "2"), ("a.io/gpu", "1"), ("b.io/foo", "3")]);
        assert_eq!(found.allocatable, wanted);
    }

    #[test]
    fn allocatable_is_what_is_left() {
        let facts = Facts {
            cpus: 4,
            memory_bytes: 8 << 30,
            disk_bytes: 100 << 30,
            ..Facts::default()
        };
        let reserved = BTreeMap::from([("cpu".to_owned(), "500m".to_owned())]);
        let all = allocatable(&facts, 110, &reserved, 1);
        let text = |name: &str| all[name].0.as_str();
        assert_eq!((text("cpu"), text("pods")), ("2500m", "110"));
        let memory = Quantity::try_from(&all["memory"]).unwrap();
        assert_eq!(memory.units(), (8 << 30) - (100 << 20));
    }
}
