//! The cluster of these tests: an API server, the controllers, and a hollow agent that runs pods.

use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use peapod_apiserver::{ApiServer, Config, Engine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An API server and the controllers; dropping it ends them.
pub struct Cluster {
    pub client: Client,
    _server: ApiServer,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(peapod_controllers::Config::default()).await
    }

    pub async fn with(mut config: peapod_controllers::Config) -> Self {
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

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub fn cluster<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }
}

pub async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub async fn patch<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.unwrap();
}

/// Asks until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, asking).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

pub async fn count<K>(api: &Api<K>) -> usize
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    api.list(&ListParams::default()).await.unwrap().items.len()
}

/// The hollow agent: every pod runs and is ready as soon as it is seen, and ends when it is
/// deleted.
pub async fn run_pods(client: Client) {
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

pub fn deployment(image: &str, replicas: i32) -> Value {
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
pub async fn rolled_out(cluster: &Cluster, replicas: i32) -> bool {
    let web = cluster.api::<Deployment>().get("web").await.unwrap();
    let status = web.status.unwrap_or_default();
    status.observed_generation == web.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
}
