//! An API server and a node agent in one process, and what tests ask of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Node, Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use parking_lot::Mutex;
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use peapod_apiserver::ApiServer;
use peapod_apiserver::pki::Subject;
use peapod_nodelet::make::etc::ClusterDns;
use peapod_nodelet::runtime::{ContainerId, Runtime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A network that only counts addresses.
#[derive(Default)]
pub struct Paper(Mutex<BTreeMap<String, (PodRef, u8)>>);

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
pub struct World {
    pub dir: tempfile::TempDir,
    server: Arc<ApiServer>,
    /// An administrator's, as a file.
    pub kubeconfig: PathBuf,
    /// An administrator, over the network.
    pub client: Client,
    runtime: Arc<dyn Runtime>,
    pub network: Arc<Paper>,
    serving: CancellationToken,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.cancel();
        // Pods that are left have memory mounted.
        if let Err(error) = peapod_nodelet::volumes::place::remove(&self.node_dir()) {
            eprintln!("{error}");
        }
    }
}

/// Serves on loopback; the client of an administrator, also as a kubeconfig.
async fn serve(server: &Arc<ApiServer>, kubeconfig: &Path) -> (Client, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (serving, shutdown) = (server.clone(), stop.clone());
    tokio::spawn(async move { serving.serve(vec![listener], shutdown).await });
    let text = server.admin_kubeconfig(&url).unwrap();
    std::fs::write(kubeconfig, &text).unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    (Client::try_from(config).unwrap(), stop)
}

impl World {
    /// A cluster of one node that runs containers by this runtime.
    pub async fn new(runtime: Arc<dyn Runtime>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = peapod_apiserver::Config::new(dir.path().join("api"));
        config.engine = peapod_apiserver::Engine::Memory;
        let server = Arc::new(ApiServer::start(config).await.unwrap());
        let kubeconfig = dir.path().join("kubeconfig");
        let (client, serving) = serve(&server, &kubeconfig).await;
        let mut world = Self {
            dir,
            kubeconfig,
            client,
            server,
            runtime,
            network: Arc::default(),
            serving,
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

    pub fn node_dir(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub fn start_agent(&mut self) {
        let config = peapod_nodelet::Config {
            node_name: "n1".to_owned(),
            node_ips: vec!["127.0.0.1".parse().unwrap()],
            hostname: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            data_dir: self.node_dir(),
            log_dir: self.node_dir().join("logs"),
            local_volumes_dir: self.node_dir().join("local"),
            runtime: self.runtime.clone(),
            cluster_dns: ClusterDns {
                servers: vec!["10.96.0.10".parse().unwrap()],
                domain: "cluster.local".to_owned(),
            },
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            reserved: BTreeMap::new(),
            kubelet: peapod_nodelet::KubeletConfiguration::default(),
            server: Some(self.kubelet_api()),
        };
        let client = self.server.client("system:node:n1", &["system:nodes"]);
        let shutdown = CancellationToken::new();
        let run = peapod_nodelet::run(client, config, self.network.clone(), shutdown.clone());
        let agent = tokio::spawn(async move { run.await.unwrap() });
        self.agent = Some((shutdown, agent));
    }

    fn kubelet_api(&self) -> peapod_nodelet::ServerConfig {
        let sans = ["127.0.0.1".to_owned()];
        let subject = Subject {
            name: "system:node:n1",
            groups: &["system:nodes"],
            sans: &sans,
        };
        let pki = self.server.pki();
        let serving = pki
            .credential("kubelet", &subject, Timestamp::now())
            .unwrap();
        peapod_nodelet::ServerConfig {
            port: 0,
            serving: tokio::sync::watch::channel(peapod_nodelet::Serving {
                cert_pem: serving.certificate,
                key_pem: serving.key,
            })
            .1,
            client_ca_pem: pki.ca_certificate().to_owned(),
            agents: Default::default(),
        }
    }

    pub async fn restart_agent(&mut self) {
        self.stop_agent().await;
        self.start_agent();
    }

    pub async fn stop_agent(&mut self) {
        if let Some((shutdown, agent)) = self.agent.take() {
            shutdown.cancel();
            agent.await.unwrap();
        }
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("n1");
        self.create(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}))
            .await
    }

    /// Waits for a pod to be as it is described.
    pub async fn until(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        let cond = |pod: Option<&Pod>| pod.is_some_and(&is);
        wait(await_condition(self.pods(), name, cond))
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn until_gone(&self, name: &str) {
        let gone = |pod: Option<&Pod>| pod.is_none();
        wait(await_condition(self.pods(), name, gone))
            .await
            .unwrap();
    }

    pub fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.node_dir()
            .join("pods")
            .join(pod.metadata.uid.as_deref().unwrap())
    }
}

pub async fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not come about in time")
}

pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub fn ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    peapod_api::conditions::is_true(all, "Ready")
}

pub fn container(pod: &Pod) -> &ContainerStatus {
    &pod.status
        .as_ref()
        .unwrap()
        .container_statuses
        .as_ref()
        .unwrap()[0]
}

pub fn id(pod: &Pod) -> ContainerId {
    let id = container(pod).container_id.as_deref().unwrap();
    ContainerId(id.strip_prefix("containerd://").unwrap().to_owned())
}
