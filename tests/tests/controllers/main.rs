//! The controllers over the API server, in one process; a hollow agent runs the pods.

mod autoscaler;
mod csi;
mod endpoints;
mod load_balancer;
mod quota;
mod workloads;

use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use peapod_api::net::{IpBlock, IpPool};
use peapod_apiserver::{ApiServer, Config, Engine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server and the controllers; dropping it ends them.
struct Cluster {
    client: Client,
    _server: ApiServer,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(peapod_controllers::Config::default()).await
    }

    async fn with(mut config: peapod_controllers::Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::start(Config {
            engine: Engine::Memory,
            ..Config::new(dir.path())
        });
        let server = server.await.unwrap();
        config.root_ca_pem = "a root".to_owned();
        let client = server.client("kubernetes-admin", &["system:masters"]);
        let own = server.client("system:kube-controller-manager", &[]);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ended = peapod_controllers::run(own, config, CancellationToken::new()).await;
            panic!("the controllers ended: {ended:?}");
        });
        tasks.spawn(run_pods(client.clone()));
        let cluster = Self {
            client,
            _server: server,
            _tasks: tasks,
            _dir: dir,
        };
        // Without it the API takes no pod.
        let accounts = cluster.api::<ServiceAccount>();
        eventually("the namespace's service account", || {
            let accounts = accounts.clone();
            async move { accounts.get_opt("default").await.unwrap().is_some() }
        })
        .await;
        cluster
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    fn cluster<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

async fn patch<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.unwrap();
}

/// Asks until the answer is yes.
async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, asking).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

async fn count<K>(api: &Api<K>) -> usize
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    api.list(&ListParams::default()).await.unwrap().items.len()
}

/// The hollow agent: every pod runs and is ready as soon as it is seen, and ends when it is
/// deleted.
async fn run_pods(client: Client) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
    let mut number = 1;
    while let Ok(Some(pod)) = pods.try_next().await {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api
                .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                .await;
        } else if phase.is_none_or(|phase| phase == "Pending") {
            number += 1;
            // What is for an end ends at once, in the way that a label says.
            let end = pod.labels().get("ends").map_or("Running", String::as_str);
            let status = json!({"status": {
                "phase": end,
                "podIPs": [{"ip": format!("10.244.0.{number}")}],
                "podIP": format!("10.244.0.{number}"),
                "conditions": [{"type": "Ready", "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            }});
            let patch = Patch::Merge(status);
            let _ = api
                .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await;
        }
    }
}

fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

/// Whether the Deployment `web` has rolled out, as `kubectl rollout status` tells.
async fn rolled_out(cluster: &Cluster, replicas: i32) -> bool {
    let web = cluster.api::<Deployment>().get("web").await.unwrap();
    let status = web.status.unwrap_or_default();
    status.observed_generation == web.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
}

#[tokio::test]
async fn a_deployment_rolls_out_scales_and_rolls_back() {
    let cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    create(&deployments, deployment("v1", 3)).await;
    eventually("the first rollout", || rolled_out(&cluster, 3)).await;

    patch(&deployments, "web", json!({"spec": {"replicas": 5}})).await;
    eventually("scaling up", || rolled_out(&cluster, 5)).await;
    assert_eq!(count(&sets).await, 1);

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
    patch(&deployments, "web", image("v2")).await;
    eventually("the second rollout", || async {
        rolled_out(&cluster, 5).await && count(&sets).await == 2
    })
    .await;
    patch(&deployments, "web", image("v1")).await;
    eventually("the rollback", || async {
        let web = deployments.get("web").await.unwrap();
        let revision = web
            .annotations()
            .get("deployment.kubernetes.io/revision")
            .cloned();
        rolled_out(&cluster, 5).await && revision.as_deref() == Some("3")
    })
    .await;
    assert_eq!(count(&sets).await, 2, "the old ReplicaSet is used again");
    eventually("the old pods to go", || async {
        count(&cluster.api::<Pod>()).await == 5
    })
    .await;
    eventually("the event of the scaling", || async {
        let events = cluster
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        events.iter().any(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            message.starts_with("Scaled up replica set web-") && message.ends_with("from 0 to 3")
        })
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_is_replaced_and_an_orphan_adopted() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<Deployment>(), deployment("v1", 2)).await;
    eventually("the rollout", || rolled_out(&cluster, 2)).await;
    let first = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    pods.delete(&first.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    eventually("another pod in its place", || async {
        let now = pods.list(&ListParams::default()).await.unwrap();
        now.items.len() == 2 && now.iter().all(|pod| pod.uid() != first.uid())
    })
    .await;

    // Without its label a pod is let go of; with it again it is taken back, or is one too many.
    let second = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    patch(
        &pods,
        &second.name_any(),
        json!({"metadata": {"labels": {"app": "other"}}}),
    )
    .await;
    eventually("the pod to be released and replaced", || async {
        let released = pods.get(&second.name_any()).await.unwrap();
        released.owner_references().is_empty() && count(&pods).await == 3
    })
    .await;
    patch(
        &pods,
        &second.name_any(),
        json!({"metadata": {"labels": {"app": "web"}}}),
    )
    .await;
    eventually("two pods again", || async { count(&pods).await == 2 }).await;
}

#[tokio::test]
async fn deletion_reaches_the_dependents_as_asked() {
    let cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    let pods = cluster.api::<Pod>();
    for (params, left) in [
        (DeleteParams::background(), 0),
        (DeleteParams::foreground(), 0),
        (DeleteParams::orphan(), 1),
    ] {
        create(&deployments, deployment("v1", 2)).await;
        eventually("the rollout", || rolled_out(&cluster, 2)).await;
        deployments.delete("web", &params).await.unwrap();
        eventually("the deployment to go", || async {
            deployments.get_opt("web").await.unwrap().is_none()
        })
        .await;
        eventually("what depends on it to go, or to be orphaned", || async {
            let found = sets.list(&ListParams::default()).await.unwrap();
            let orphans = found.iter().all(|set| set.owner_references().is_empty());
            found.items.len() == left && orphans && count(&pods).await == left * 2
        })
        .await;
    }
}

#[tokio::test]
async fn a_service_has_the_addresses_of_its_ready_pods() {
    let cluster = Cluster::start().await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    create(&cluster.api::<Service>(), service).await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("three ready endpoints", || async {
        let slices = cluster.api::<EndpointSlice>().list(&of_web).await.unwrap();
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let ready =
            endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.count() == 3
    })
    .await;
    eventually("the same in the legacy form", || async {
        let legacy = cluster.api::<Endpoints>().get_opt("web").await.unwrap();
        let subsets = legacy.and_then(|legacy| legacy.subsets).unwrap_or_default();
        let addresses = subsets
            .iter()
            .flat_map(|subset| subset.addresses.iter().flatten());
        addresses.count() == 3
    })
    .await;
    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("both to go with the service", || async {
        let slices = cluster.api::<EndpointSlice>().list(&of_web).await.unwrap();
        let legacy = cluster.api::<Endpoints>().get_opt("web").await.unwrap();
        slices.items.is_empty() && legacy.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_namespace_is_furnished_and_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    let namespaces = cluster.cluster::<Namespace>();
    create(&namespaces, json!({"metadata": {"name": "team"}})).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    eventually("its account and root CA", || async {
        let account = accounts.get_opt("default").await.unwrap();
        let bundle = maps.get_opt("kube-root-ca.crt").await.unwrap();
        let bundle = bundle.and_then(|bundle| bundle.data);
        account.is_some() && bundle.is_some_and(|data| data["ca.crt"] == "a root")
    })
    .await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    eventually("a deleted account to come back", || async {
        accounts.get_opt("default").await.unwrap().is_some()
    })
    .await;

    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "team");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    create(&deployments, deployment("v1", 2)).await;
    eventually("two pods", || async { count(&pods).await == 2 }).await;
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the namespace to go", || async {
        namespaces.get_opt("team").await.unwrap().is_none()
    })
    .await;
    assert_eq!(
        count(&pods).await + count(&deployments).await + count(&maps).await,
        0
    );
}

#[tokio::test]
async fn a_node_gets_a_block_of_each_family_and_keeps_it() {
    let cluster = Cluster::start().await;
    let (nodes, blocks) = (cluster.cluster::<Node>(), cluster.cluster::<IpBlock>());
    for name in ["n1", "n2"] {
        create(&nodes, json!({"metadata": {"name": name}})).await;
    }
    eventually("pod CIDRs on both", || async {
        let nodes = nodes.list(&ListParams::default()).await.unwrap();
        let cidrs = nodes
            .iter()
            .filter_map(|node| node.spec.as_ref()?.pod_cidrs.as_ref());
        cidrs.map(Vec::len).collect::<Vec<_>>() == [2, 2]
    })
    .await;
    assert_eq!(count(&blocks).await, 4);
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    eventually("the blocks of the node that went", || async {
        count(&blocks).await == 2
    })
    .await;
    let left = blocks.list(&ListParams::default()).await.unwrap();
    assert!(left.iter().all(|block| block.spec.node == "n2"));
}

/// The controllers' part of what a node with small blocks goes through; the agent is played.
#[tokio::test]
async fn a_node_grows_a_block_and_gives_it_back() {
    let config = peapod_controllers::Config {
        block_idle: Duration::from_millis(10),
        cluster_cidrs: Vec::new(),
        ..Default::default()
    };
    let cluster = Cluster::with(config).await;
    let (nodes, blocks) = (cluster.cluster::<Node>(), cluster.cluster::<IpBlock>());
    let (pods, pools) = (cluster.api::<Pod>(), cluster.cluster::<IpPool>());
    let small =
        json!({"metadata": {"name": "small"}, "spec": {"cidr": "10.1.0.0/24", "blockSize": 30}});
    create(&pools, small).await;
    let overlapping =
        json!({"metadata": {"name": "more"}, "spec": {"cidr": "10.1.0.128/25", "blockSize": 30}});
    let overlapping = serde_json::from_value(overlapping).unwrap();
    let refused = pools.create(&PostParams::default(), &overlapping).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("overlap with the IpPool \"small\"")
    );
    create(&nodes, json!({"metadata": {"name": "n1"}})).await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
    };
    for name in ["p1", "p2", "p3"] {
        create(&pods, pod(name)).await;
    }
    let used = |wanted: u64| {
        let pools = pools.clone();
        async move {
            let status = pools.get("small").await.unwrap().status;
            status.is_some_and(|status| status.blocks.used == wanted)
        }
    };
    eventually("a second block", || used(2)).await;
    let node = nodes.get("n1").await.unwrap();
    let cidrs = node.spec.unwrap().pod_cidrs.unwrap();
    assert_eq!(cidrs, ["10.1.0.0/30"], "a copy of the first");
    let refused = pools.delete("small", &DeleteParams::default()).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("2 of its blocks are held by nodes (n1)")
    );
    for name in ["p1", "p2", "p3"] {
        let now = DeleteParams::default().grace_period(0);
        pods.delete(name, &now).await.unwrap();
    }
    let further = "10-1-0-4-30";
    eventually("the second block to be asked back", || async {
        let block = blocks.get(further).await.unwrap();
        block.metadata.deletion_timestamp.is_some()
    })
    .await;
    patch(&blocks, further, json!({"metadata": {"finalizers": null}})).await;
    eventually("it to be free", || used(1)).await;
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    eventually("all to be free", || used(0)).await;
    pools
        .delete("small", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_silent_node_is_tainted_and_its_pods_leave() {
    let config = peapod_controllers::Config {
        node_grace: Duration::from_millis(1500),
        ..Default::default()
    };
    let cluster = Cluster::with(config).await;
    let (nodes, pods) = (cluster.cluster::<Node>(), cluster.api::<Pod>());
    let ready = |name: &str, heartbeat: &str| {
        json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat},
        ]}})
    };
    for name in ["alive", "silent"] {
        create(&nodes, ready(name, "2026-01-01T00:00:00Z")).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "silent", "containers": [{"name": "c", "image": "i"}],
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 0}],
    }});
    create(&pods, pod).await;
    let mut beat = 0;
    eventually("the pod to leave the silent node", || {
        beat += 1;
        let heartbeat = format!("2026-01-01T00:{:02}:{:02}Z", beat / 60 % 60, beat % 60);
        let (nodes, pods, body) = (nodes.clone(), pods.clone(), ready("alive", &heartbeat));
        async move {
            let patch = Patch::Merge(json!({"status": body["status"]}));
            nodes
                .patch_status("alive", &PatchParams::default(), &patch)
                .await
                .unwrap();
            pods.get_opt("p").await.unwrap().is_none()
        }
    })
    .await;
    let silent = nodes.get("silent").await.unwrap();
    let conditions = silent.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    let alive = nodes.get("alive").await.unwrap();
    assert_eq!(
        alive.spec.and_then(|spec| spec.taints).unwrap_or_default(),
        []
    );
}

fn claim(name: &str, class: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }})
}

async fn phase(claims: &Api<PersistentVolumeClaim>, name: &str) -> Option<String> {
    claims
        .get(name)
        .await
        .unwrap()
        .status
        .and_then(|status| status.phase)
}

#[tokio::test]
async fn a_claim_is_bound_to_the_volume_that_fits() {
    let cluster = Cluster::start().await;
    let volumes = cluster.cluster::<PersistentVolume>();
    let claims = cluster.api::<PersistentVolumeClaim>();
    for (name, size) in [("small", "500Mi"), ("fits", "2Gi"), ("large", "9Gi")] {
        let volume = json!({"metadata": {"name": name}, "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"},
        }});
        create(&volumes, volume).await;
    }
    create(&claims, claim("data", "")).await;
    eventually("the claim to be bound", || async {
        phase(&claims, "data").await.as_deref() == Some("Bound")
    })
    .await;
    let bound = claims.get("data").await.unwrap();
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("fits"));
    claims
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the volume to be released, and kept", || async {
        let volume = volumes.get("fits").await.unwrap();
        volume.status.and_then(|status| status.phase).as_deref() == Some("Released")
    })
    .await;
}

#[tokio::test]
async fn a_local_volume_is_made_on_the_selected_node_and_goes_with_its_claim() {
    let cluster = Cluster::start().await;
    let volumes = cluster.cluster::<PersistentVolume>();
    let claims = cluster.api::<PersistentVolumeClaim>();
    let labels = json!({"kubernetes.io/hostname": "n1"});
    create(
        &cluster.cluster::<Node>(),
        json!({"metadata": {"name": "n1", "labels": labels}}),
    )
    .await;
    eventually("the built-in class", || async {
        let classes = cluster.cluster::<StorageClass>();
        classes.get_opt("local").await.unwrap().is_some()
    })
    .await;
    create(&claims, claim("data", "local")).await;
    eventually("the claim to wait", || async {
        phase(&claims, "data").await.as_deref() == Some("Pending")
    })
    .await;
    let selected = json!({"volume.kubernetes.io/selected-node": "n1"});
    patch(
        &claims,
        "data",
        json!({"metadata": {"annotations": selected}}),
    )
    .await;
    eventually("the claim to be bound", || async {
        phase(&claims, "data").await.as_deref() == Some("Bound")
    })
    .await;
    let name = claims
        .get("data")
        .await
        .unwrap()
        .spec
        .unwrap()
        .volume_name
        .unwrap();
    claims
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the volume to wait for the node agent", || async {
        let volume = volumes.get(&name).await.unwrap();
        let finalizers = volume.finalizers().to_vec();
        volume.metadata.deletion_timestamp.is_some() && finalizers == ["peapod.dev/local-volume"]
    })
    .await;
    patch(&volumes, &name, json!({"metadata": {"finalizers": null}})).await;
    eventually("the volume to be gone", || async {
        volumes.get_opt(&name).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_budget_says_how_many_pods_may_go() {
    let cluster = Cluster::start().await;
    let budgets = cluster.api::<PodDisruptionBudget>();
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = json!({"maxUnavailable": 1, "selector": selector});
    create(&budgets, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    let allows = async |allowed: i32, expected: i32| {
        let status = budgets.get("web").await.unwrap().status.unwrap_or_default();
        status.disruptions_allowed == Some(allowed) && status.expected_pods == Some(expected)
    };
    eventually("one of three to be spared", || allows(1, 3)).await;
    let pods = cluster.api::<Pod>();
    let pod = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    patch_ready(&pods, &pod.name_any(), "False").await;
    eventually("none to be spared", || allows(0, 3)).await;
}

async fn patch_ready(pods: &Api<Pod>, name: &str, ready: &str) {
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let patch = Patch::Merge(status);
    pods.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let cluster = Cluster::start().await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    create(
        &cluster.cluster::<Node>(),
        json!({"metadata": {"name": "n1"}}),
    )
    .await;
    eventually("the rollout", || rolled_out(&cluster, 3)).await;
    let revision = || async {
        let listed = cluster
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        listed.metadata.resource_version
    };
    // Settled when a second passes without a write; it never does if loops wake each other.
    eventually("a second without a write", || async {
        let before = revision().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        before == revision().await
    })
    .await;
}
