//! What every loop is given: the client, the configuration, the shared informers.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    PodSpec, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, Volume,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use kube::{Api, Client};
use peapod_api::net::{
    BgpConfig, BgpNode, BgpPeer, IpBlock, IpPool, LoadBalancerAddress, LoadBalancerPool,
};

use super::events::{self, Events, Writer};
use super::informer::{Informer, Keep};
use super::metrics::Metrics;
use super::worker::Tasks;
use crate::common::{Key, owner, pods};
use crate::config::Config;

/// What every loop is given. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub client: Client,
    /// The configuration.
    pub config: Arc<Config>,
    /// One watch per kind, for all.
    pub informers: Arc<Informers>,
    /// Where to record events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

macro_rules! informers {
    ($($(#[$doc:meta])* $field:ident: $kind:ty = $keep:expr, $api:expr;)*) => {
        /// The shared informers.
        pub struct Informers {
            $($(#[$doc])* pub $field: Arc<Informer<$kind>>,)*
        }

        impl Informers {
            fn new(client: &Client) -> Self {
                Self {
                    $($field: Informer::new($api(client.clone()), $keep),)*
                }
            }

            fn run(&self, tasks: &mut Tasks) {
                $(tasks.spawn(stringify!($field), self.$field.clone().run());)*
            }
        }
    };
}

informers! {
    /// Pods, by owner and node: see [`term`].
    pods: Pod = Keep { trim: trim_pod, index: index_pod, ..Keep::default() }, Api::all;
    /// ReplicaSets.
    replica_sets: ReplicaSet = Keep::default(), Api::all;
    /// ReplicationControllers.
    replication_controllers: ReplicationController = Keep::default(), Api::all;
    /// Deployments.
    deployments: Deployment = Keep::default(), Api::all;
    /// StatefulSets.
    stateful_sets: StatefulSet = Keep::default(), Api::all;
    /// DaemonSets.
    daemon_sets: DaemonSet = Keep::default(), Api::all;
    /// The templates that StatefulSets and DaemonSets had, by owner: see [`term`].
    revisions: ControllerRevision = Keep { index: index_owned, ..Keep::default() }, Api::all;
    /// Jobs, by owner: see [`term`].
    jobs: Job = Keep { index: index_owned, ..Keep::default() }, Api::all;
    /// CronJobs.
    cron_jobs: CronJob = Keep::default(), Api::all;
    /// Services.
    services: Service = Keep::default(), Api::all;
    /// From which ranges they get addresses.
    service_cidrs: ServiceCIDR = Keep::default(), Api::all;
    /// EndpointSlices, by service: see [`term`].
    endpoint_slices: EndpointSlice = Keep { index: index_slice, ..Keep::default() }, Api::all;
    /// Endpoints.
    endpoints: Endpoints = Keep::default(), Api::all;
    /// Nodes.
    nodes: Node = Keep { trim: trim_node, ..Keep::default() }, Api::all;
    /// The nodes' Leases.
    leases: Lease = Keep::default(), node_leases;
    /// Namespaces.
    namespaces: Namespace = Keep::default(), Api::all;
    /// ServiceAccounts.
    service_accounts: ServiceAccount = Keep::default(), Api::all;
    /// The root CA bundles of the namespaces, no other ConfigMap.
    root_cas: ConfigMap = Keep { fields: "metadata.name=kube-root-ca.crt", ..Keep::default() }, Api::all;
    /// Address blocks, by node: see [`term`].
    ip_blocks: IpBlock = Keep { index: index_block, ..Keep::default() }, Api::all;
    /// What they are cut from.
    ip_pools: IpPool = Keep::default(), Api::all;
    /// Addresses for load balancers.
    load_balancer_pools: LoadBalancerPool = Keep::default(), Api::all;
    /// Who has which of them, by service: see [`term`].
    load_balancer_addresses: LoadBalancerAddress = Keep { index: index_address, ..Keep::default() }, Api::all;
    /// Neighbours that nodes speak BGP with.
    bgp_peers: BgpPeer = Keep::default(), Api::all;
    /// What they have in common.
    bgp_configs: BgpConfig = Keep::default(), Api::all;
    /// How nodes speak BGP.
    bgp_nodes: BgpNode = Keep::default(), Api::all;
    /// ResourceQuotas.
    quotas: ResourceQuota = Keep::default(), Api::all;
    /// Disruption budgets.
    budgets: PodDisruptionBudget = Keep::default(), Api::all;
    /// Volumes.
    volumes: PersistentVolume = Keep::default(), Api::all;
    /// Claims.
    claims: PersistentVolumeClaim = Keep::default(), Api::all;
    /// Storage classes.
    storage_classes: StorageClass = Keep::default(), Api::all;
    /// Classes of attributes that volumes can change to.
    attributes_classes: VolumeAttributesClass = Keep::default(), Api::all;
    /// Drivers of volumes.
    csi_drivers: CSIDriver = Keep::default(), Api::all;
    /// On which nodes they are.
    csi_nodes: CSINode = Keep::default(), Api::all;
    /// How much room they have where.
    csi_capacities: CSIStorageCapacity = Keep::default(), Api::all;
    /// Which volumes are, or are to be, attached to which nodes: see [`term`].
    attachments: VolumeAttachment = Keep { index: index_attachment, ..Keep::default() }, Api::all;
    /// Secrets of bootstrap tokens, no others.
    bootstrap_tokens: Secret = Keep { fields: "type=bootstrap.kubernetes.io/token", ..Keep::default() }, Api::all;
    /// Certificate requests.
    certificate_requests: CertificateSigningRequest = Keep::default(), Api::all;
    /// HorizontalPodAutoscalers.
    autoscalers: HorizontalPodAutoscaler = Keep::default(), Api::all;
    /// ClusterRoles.
    cluster_roles: ClusterRole = Keep::default(), Api::all;
}

impl Context {
    /// A context, and the task that writes its events.
    pub fn new(client: Client, config: Config, metrics: Metrics) -> (Self, Writer) {
        let (events, writer) = events::channel(client.clone());
        let context = Self {
            informers: Arc::new(Informers::new(&client)),
            config: Arc::new(config),
            client,
            events,
            metrics,
        };
        (context, writer)
    }

    /// Starts the watches. Call it when every loop is wired.
    pub fn watch(&self, tasks: &mut Tasks) {
        self.informers.run(tasks);
    }
}

/// The terms of the indexes.
pub mod term {
    use crate::common::Key;

    /// Objects managed by the controller with this uid.
    pub fn owned_by(uid: &str) -> String {
        format!("owner/{uid}")
    }

    /// Pods of a namespace that nothing manages.
    pub fn orphans_of(namespace: &str) -> String {
        format!("orphan/{namespace}")
    }

    /// Pods on a node; address blocks of it; attachments to it.
    pub fn on_node(node: &str) -> String {
        format!("node/{node}")
    }

    /// Pods that have run to their end.
    pub const FINISHED: &str = "finished";
    /// Pods that have no node.
    pub const UNSCHEDULED: &str = "unscheduled";

    /// Pods that use a claim.
    pub fn using_claim(claim: &Key) -> String {
        format!("claim/{claim}")
    }

    /// Attachments of a volume.
    pub fn of_volume(volume: &str) -> String {
        format!("volume/{volume}")
    }

    /// EndpointSlices of a service; addresses of a load balancer of it.
    pub fn of_service(service: &Key) -> String {
        format!("service/{service}")
    }
}

fn node_leases(client: Client) -> Api<Lease> {
    Api::namespaced(client, "kube-node-lease")
}

fn index_pod(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut terms = vec![match owner::controller_of(&pod.metadata) {
        Some(owner) => term::owned_by(&owner.uid),
        None => term::orphans_of(namespace),
    }];
    let node = pods::node_name(pod);
    terms.push(match node {
        "" => term::UNSCHEDULED.to_owned(),
        node => term::on_node(node),
    });
    if pods::is_finished(pod) {
        terms.push(term::FINISHED.to_owned());
    }
    for claim in pods::claims(pod) {
        terms.push(term::using_claim(&claim));
    }
    terms
}

fn index_owned<K: kube::Resource>(object: &K) -> Vec<String> {
    let owner = owner::controller_of(object.meta());
    owner
        .map(|owner| term::owned_by(&owner.uid))
        .into_iter()
        .collect()
}

fn index_block(block: &IpBlock) -> Vec<String> {
    vec![term::on_node(&block.spec.node)]
}

fn index_address(address: &LoadBalancerAddress) -> Vec<String> {
    let services = address.spec.services.iter();
    services
        .map(|one| term::of_service(&Key::new(&one.namespace, &one.name)))
        .collect()
}

fn index_attachment(attachment: &VolumeAttachment) -> Vec<String> {
    let spec = &attachment.spec;
    let volume = spec.source.persistent_volume_name.as_deref();
    let volume = volume.map(term::of_volume);
    volume
        .into_iter()
        .chain([term::on_node(&spec.node_name)])
        .collect()
}

fn index_slice(slice: &EndpointSlice) -> Vec<String> {
    let meta = &slice.metadata;
    let labels = meta.labels.as_ref();
    let Some(name) = labels.and_then(|labels| labels.get(peapod_api::labels::SERVICE_NAME)) else {
        return Vec::new();
    };
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    vec![term::of_service(&Key::new(namespace, name))]
}

/// The annotations of pods that loops read.
const ANNOTATIONS: [&str; 2] = [crate::replicaset::DELETION_COST, crate::job::INDEX_FAILURES];

/// Keeps of a container its name and ports, of a pod what loops ask for.
fn trim_pod(pod: &mut Pod) {
    pod.metadata.annotations = pod.metadata.annotations.take().map(|mut annotations| {
        annotations.retain(|name, _| ANNOTATIONS.contains(&name.as_str()));
        annotations
    });
    let is_of_daemon_set =
        owner::controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "DaemonSet");
    let Some(spec) = &mut pod.spec else { return };
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        *container = Container {
            name: std::mem::take(&mut container.name),
            ports: container.ports.take(),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
    *spec = PodSpec {
        containers: std::mem::take(&mut spec.containers),
        init_containers: spec.init_containers.take(),
        node_name: spec.node_name.take(),
        // It names the node that a pod of a DaemonSet is for before it is bound.
        affinity: spec.affinity.take().filter(|_| is_of_daemon_set),
        restart_policy: spec.restart_policy.take(),
        hostname: spec.hostname.take(),
        subdomain: spec.subdomain.take(),
        host_network: spec.host_network,
        tolerations: spec.tolerations.take(),
        volumes: spec.volumes.take().map(claims_only),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        ..PodSpec::default()
    };
}

fn claims_only(mut volumes: Vec<Volume>) -> Vec<Volume> {
    volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    volumes
}

/// The images of a node are its longest list and no loop's business.
fn trim_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}
