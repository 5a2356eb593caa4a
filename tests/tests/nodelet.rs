//! The node agent against a real API server, with containers and a network that pretend: what
//! the API shows, what stands on the disk, and what survives a restart of the agent.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMap, ContainerStatus, Node, Pod, Secret, Service, ServiceAccount,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use parking_lot::Mutex;
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use peapod_apiserver::ApiServer;
use peapod_nodelet::make::etc::ClusterDns;
use peapod_nodelet::runtime::hollow::Hollow;
use peapod_nodelet::runtime::{ContainerId, Runtime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network that only counts addresses.
#[derive(Default)]
struct Paper(Mutex<BTreeMap<String, (PodRef, u8)>>);

#[async_trait::async_trait]
impl PodNetwork for Paper {
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError> {
        let mut pods = self.0.lock();
        let next = u8::try_from(pods.len() + 2).unwrap();
        let pod = pods
            .entry(request.pod.uid.clone())
            .or_insert((request.pod, next));
        let ip = IpAddr::V4(Ipv4Addr::new(10, 244, 0, pod.1));
        Ok(AttachReply {
            ips: vec![ip],
            interface: "eth0".to_owned(),
            mtu: 1500,
        })
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError> {
        self.0.lock().remove(&request.pod.uid);
        Ok(())
    }

    async fn attached(&self) -> Result<Vec<PodRef>, AttachError> {
        Ok(self.0.lock().values().map(|(pod, _)| pod.clone()).collect())
    }

    async fn ready(&self) -> Result<(), AttachError> {
        Ok(())
    }
}

/// An API server and a node agent.
struct World {
    dir: tempfile::TempDir,
    server: ApiServer,
    client: Client,
    hollow: Hollow,
    network: Arc<Paper>,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = peapod_apiserver::Config::new(dir.path().join("api"));
        config.engine = peapod_apiserver::Engine::Memory;
        let server = ApiServer::start(config).await.unwrap();
        let client = server.client("kubernetes-admin", &["system:masters"]);
        let mut world = Self {
            dir,
            client,
            server,
            hollow: Hollow::default(),
            network: Arc::default(),
            agent: None,
        };
        // What the controllers would make.
        world
            .create::<ServiceAccount>(json!({"metadata": {"name": "default"}}))
            .await;
        let ca = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}});
        world.create::<ConfigMap>(ca).await;
        world.start_agent();
        let nodes: Api<Node> = Api::all(world.client.clone());
        wait(await_condition(nodes, "n1", |node: Option<&Node>| {
            node.is_some_and(|node| {
                let all = node.status.as_ref().and_then(|s| s.conditions.as_deref());
                peapod_api::conditions::is_true(all.unwrap_or_default(), "Ready")
            })
        }))
        .await
        .unwrap();
        world
    }

    fn node_dir(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn start_agent(&mut self) {
        let config = peapod_nodelet::Config {
            node_name: "n1".to_owned(),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
            labels: BTreeMap::new(),
            data_dir: self.node_dir(),
            log_dir: self.node_dir().join("logs"),
            local_volumes_dir: self.node_dir().join("local"),
            runtime: Arc::new(self.hollow.clone()),
            cluster_dns: ClusterDns {
                servers: vec!["10.96.0.10".parse().unwrap()],
                domain: "cluster.local".to_owned(),
            },
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            reserved: BTreeMap::new(),
            server: None,
        };
        let client = self.server.client("system:node:n1", &["system:nodes"]);
        let shutdown = CancellationToken::new();
        let run = peapod_nodelet::run(client, config, self.network.clone(), shutdown.clone());
        let agent = tokio::spawn(async move { run.await.unwrap() });
        self.agent = Some((shutdown, agent));
    }

    async fn restart_agent(&mut self) {
        self.stop_agent().await;
        self.start_agent();
    }

    async fn stop_agent(&mut self) {
        if let Some((shutdown, agent)) = self.agent.take() {
            shutdown.cancel();
            agent.await.unwrap();
        }
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("n1");
        self.create(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}))
            .await
    }

    /// Waits for a pod to be as it is described.
    async fn until(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        let cond = |pod: Option<&Pod>| pod.is_some_and(&is);
        wait(await_condition(self.pods(), name, cond))
            .await
            .unwrap()
            .unwrap()
    }

    async fn until_gone(&self, name: &str) {
        let gone = |pod: Option<&Pod>| pod.is_none();
        wait(await_condition(self.pods(), name, gone))
            .await
            .unwrap();
    }

    fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.node_dir()
            .join("pods")
            .join(pod.metadata.uid.as_deref().unwrap())
    }
}

async fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not come about in time")
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    peapod_api::conditions::is_true(all, "Ready")
}

fn container(pod: &Pod) -> &ContainerStatus {
    &pod.status
        .as_ref()
        .unwrap()
        .container_statuses
        .as_ref()
        .unwrap()[0]
}

fn id(pod: &Pod) -> ContainerId {
    let id = container(pod).container_id.as_deref().unwrap();
    ContainerId(id.strip_prefix("containerd://").unwrap().to_owned())
}

fn app() -> Value {
    json!({"name": "app", "image": "example.com/app:1"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_from_creation_to_its_end() {
    let mut world = World::new().await;
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "cm"}, "data": {"mode": "fast"}}))
        .await;
    world
        .create::<Secret>(json!({"metadata": {"name": "s"}, "data": {"pass": "aHVudGVy"}}))
        .await;
    let mut app = app();
    app["env"] = json!([{"name": "MODE", "valueFrom":
        {"configMapKeyRef": {"name": "cm", "key": "mode"}}}]);
    app["volumeMounts"] = json!([{"name": "cm", "mountPath": "/cm"}]);
    let spec = json!({"containers": [app], "volumes": [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "e", "emptyDir": {}},
    ]});
    world.pod("web", spec).await;

    let pod = world.until("web", ready).await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!(phase(&pod), "Running");
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert!(status.pod_ip.as_deref().unwrap().starts_with("10.244.0."));
    assert_eq!(container(&pod).restart_count, 0);

    let volumes = world.pod_dir(&pod).join("volumes");
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert_eq!(
        read(&volumes.join("kubernetes.io~configmap/cm/mode")),
        "fast"
    );
    assert_eq!(read(&volumes.join("kubernetes.io~secret/s/pass")), "hunter");
    assert!(volumes.join("kubernetes.io~empty-dir/e").is_dir());
    let projected = std::fs::read_dir(volumes.join("kubernetes.io~projected")).unwrap();
    let token = projected.map(|entry| entry.unwrap().path()).next().unwrap();
    assert_eq!(read(&token.join("namespace")), "default");
    assert_eq!(read(&token.join("ca.crt")), "CA");
    assert_eq!(
        read(&token.join("token")).split('.').count(),
        3,
        "a token is a JWT"
    );
    let hosts = read(&world.pod_dir(&pod).join("etc/hosts"));
    assert!(hosts.contains(&format!("{}\tweb\n", status.pod_ip.as_deref().unwrap())));

    world
        .pods()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone("web").await;
    assert!(!world.pod_dir(&pod).exists());
    assert!(world.hollow.containers().await.unwrap().is_empty());
    assert!(world.network.attached().await.unwrap().is_empty());
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_follow_their_objects() {
    let mut world = World::new().await;
    let spec = json!({"containers": [app()], "automountServiceAccountToken": false,
        "volumes": [{"name": "cm", "configMap": {"name": "late"}}]});
    let pod = world.pod("web", spec).await;
    let stuck = |pod: &Pod| phase(pod) == "Pending";
    world.until("web", stuck).await;
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "1"}}))
        .await;
    world.until("web", ready).await;

    let file = world
        .pod_dir(&pod)
        .join("volumes/kubernetes.io~configmap/cm/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    let change = Patch::Merge(json!({"data": {"k": "2"}}));
    maps.patch("late", &PatchParams::default(), &change)
        .await
        .unwrap();
    let changed = async {
        while std::fs::read_to_string(&file).unwrap() != "2" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(changed).await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_are_counted_across_restarts_of_the_agent() {
    let mut world = World::new().await;
    world.pod("web", json!({"containers": [app()]})).await;
    let first = world.until("web", ready).await;
    world.hollow.exit(&id(&first), 3).unwrap();
    let second = world
        .until("web", |pod| ready(pod) && container(pod).restart_count == 1)
        .await;
    let last = container(&second)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));

    world.restart_agent().await;
    // Something that only the new agent can do.
    world.pod("later", json!({"containers": [app()]})).await;
    world.until("later", ready).await;
    let third = world.until("web", ready).await;
    assert_eq!(id(&third), id(&second), "the container runs on");
    assert_eq!(container(&third).restart_count, 1);

    // It ends while nobody looks.
    world.stop_agent().await;
    world.hollow.exit(&id(&third), 0).unwrap();
    world.start_agent();
    world
        .until("web", |pod| container(pod).restart_count == 2)
        .await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_ends_and_pods_that_do_not_fit() {
    let mut world = World::new().await;
    world
        .pod(
            "job",
            json!({"restartPolicy": "Never", "containers": [app()]}),
        )
        .await;
    let job = world.until("job", ready).await;
    world.hollow.exit(&id(&job), 0).unwrap();
    world.until("job", |pod| phase(pod) == "Succeeded").await;

    let mut big = app();
    big["resources"] = json!({"requests": {"cpu": "4000"}});
    world.pod("big", json!({"containers": [big]})).await;
    let refused = world.until("big", |pod| phase(pod) == "Failed").await;
    assert_eq!(refused.status.unwrap().reason.as_deref(), Some("OutOfcpu"));

    let node: Api<Node> = Api::all(world.client.clone());
    let status = node.get("n1").await.unwrap().status.unwrap();
    assert_eq!(status.node_info.unwrap().operating_system, "linux");
    let services: Api<Service> = Api::namespaced(world.client.clone(), "default");
    assert!(services.get_opt("kubernetes").await.unwrap().is_some());
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_the_agent_was_away_is_cleared() {
    let mut world = World::new().await;
    world.pod("gone", json!({"containers": [app()]})).await;
    let pod = world.until("gone", ready).await;
    world.stop_agent().await;
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    world.pods().delete("gone", &now).await.unwrap();
    world.until_gone("gone").await;
    assert!(world.pod_dir(&pod).exists());

    world.start_agent();
    let cleared = async {
        while world.pod_dir(&pod).exists() || !world.hollow.containers().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(cleared).await;
    assert!(world.network.attached().await.unwrap().is_empty());
    world.stop_agent().await;
}
