//! The scheduler against the API server, both in this process: what becomes of pods.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Resource};
use peapod_apiserver::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An API server and a scheduler.
struct Cluster {
    client: Client,
    scheduler: Option<JoinHandle<()>>,
    _server: ApiServer,
    _dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(task) = self.scheduler.take() {
            task.abort();
        }
    }
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        // What is logged stands beside a failure. Another test may have said so already.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let dir = tempfile::tempdir()?;
        let server = ApiServer::start(peapod_apiserver::Config::new(dir.path())).await?;
        let client = server.client("kubernetes-admin", &["system:masters"]);
        let mut cluster = Self {
            client,
            scheduler: None,
            _server: server,
            _dir: dir,
        };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                             "metadata": {"name": "default"}});
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = cluster.api();
        accounts
            .create(&PostParams::default(), &serde_json::from_value(account)?)
            .await?;
        cluster.schedule();
        Ok(cluster)
    }

    /// Starts the scheduler, in place of the one that ran.
    fn schedule(&mut self) {
        let client = self._server.client("system:kube-scheduler", &[]);
        let config = peapod_scheduler::Config::default();
        let running = peapod_scheduler::run(client, config, CancellationToken::new());
        let task = tokio::spawn(async move { running.await.expect("the scheduler runs") });
        if let Some(before) = self.scheduler.replace(task) {
            before.abort();
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn node(&self, name: &str, cpu: &str, spec: Value) -> anyhow::Result<()> {
        let resources = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": spec,
            "status": {"capacity": resources, "allocatable": resources},
        });
        let nodes = Api::<Node>::all(self.client.clone());
        let params = PostParams::default();
        nodes
            .create(&params, &serde_json::from_value(node)?)
            .await?;
        Ok(())
    }

    async fn pod(&self, name: &str, cpu: &str, spec: Value) -> anyhow::Result<()> {
        let mut full = json!({"containers": [{
            "name": "app", "image": "app", "resources": {"requests": {"cpu": cpu}},
        }]});
        if let (Value::Object(full), Value::Object(more)) = (&mut full, spec) {
            full.extend(more);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
                         "metadata": {"name": name}, "spec": full});
        self.create::<Pod>(pod).await
    }

    async fn create<K>(&self, object: Value) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Serialize,
    {
        let object = serde_json::from_value(object)?;
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// Waits until a pod is so.
    async fn until(&self, name: &str, what: &str, is: impl Condition<Pod>) -> anyhow::Result<Pod> {
        let waiting = await_condition(self.api::<Pod>(), name, is);
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        let Ok(pod) = waited else {
            let pod = self.api::<Pod>().get_opt(name).await?;
            anyhow::bail!("pod {name} is not {what}: {pod:#?}");
        };
        pod?.context("the pod is gone")
    }

    async fn until_on(&self, name: &str, node: &str) -> anyhow::Result<Pod> {
        let there = |pod: Option<&Pod>| node_of(pod) == Some(node);
        self.until(name, "bound", there).await
    }

    async fn until_unschedulable(&self, name: &str, message: &str) -> anyhow::Result<Pod> {
        let said = |pod: Option<&Pod>| said(pod).is_some_and(|(_, text)| text == message);
        self.until(name, "unschedulable", said).await
    }

    /// Waits until an event of this reason says this of a pod.
    async fn until_event(&self, pod: &str, reason: &str, message: &str) -> anyhow::Result<()> {
        let events: Api<Event> = self.api();
        let found = async {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            loop {
                pause.tick().await;
                let list = events.list(&ListParams::default()).await?;
                let is = |e: &Event| {
                    e.involved_object.name.as_deref() == Some(pod)
                        && e.reason.as_deref() == Some(reason)
                        && e.message.as_deref() == Some(message)
                };
                if list.items.iter().any(is) {
                    return anyhow::Ok(());
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.with_context(|| format!("no event {reason} of {pod}: {message}"))?
    }
}

fn node_of(pod: Option<&Pod>) -> Option<&str> {
    pod?.spec.as_ref()?.node_name.as_deref()
}

/// The reason and the message of the condition `PodScheduled`.
fn said(pod: Option<&Pod>) -> Option<(&str, &str)> {
    let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
    Some((scheduled.reason.as_deref()?, scheduled.message.as_deref()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_and_an_event_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "4", json!({})).await?;
    cluster.pod("web", "1", json!({})).await?;
    cluster.until_on("web", "n1").await?;
    let message = "Successfully assigned default/web to n1";
    cluster.until_event("web", "Scheduled", message).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_until_a_node_comes() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "1", json!({})).await?;
    cluster.pod("web", "2", json!({})).await?;
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    cluster.until_unschedulable("web", message).await?;
    cluster
        .until_event("web", "FailedScheduling", message)
        .await?;
    cluster.node("n2", "4", json!({})).await?;
    cluster.until_on("web", "n2").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_makes_room() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "1", json!({})).await?;
    cluster.pod("first", "1", json!({})).await?;
    cluster.until_on("first", "n1").await?;
    cluster.pod("second", "1", json!({})).await?;
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are \
                   available: 1 No preemption victims found for incoming pod.";
    cluster.until_unschedulable("second", message).await?;
    let now = kube::api::DeleteParams::default().grace_period(0);
    cluster.api::<Pod>().delete("first", &now).await?;
    cluster.until_on("second", "n1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_hold_a_pod_until_they_are_gone() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "4", json!({})).await?;
    let gates = json!({"schedulingGates": [{"name": "example.com/quota"}]});
    cluster.pod("web", "1", gates).await?;
    let gated = |pod: Option<&Pod>| said(pod).is_some_and(|(why, _)| why == "SchedulingGated");
    cluster.until("web", "gated", gated).await?;
    let open = json!({"spec": {"schedulingGates": null}});
    let params = PatchParams::default();
    let pods: Api<Pod> = cluster.api();
    pods.patch("web", &params, &Patch::Merge(open)).await?;
    cluster.until_on("web", "n1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_told_the_node_and_its_pod_bound_when_it_is() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "4", json!({})).await?;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "waiting"}, "provisioner": "example.com/disk",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let classes = Api::<StorageClass>::all(cluster.client.clone());
    let params = PostParams::default();
    classes
        .create(&params, &serde_json::from_value(class)?)
        .await?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"storageClassName": "waiting", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.create::<PersistentVolumeClaim>(claim).await?;
    let volumes = json!({"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    ]});
    cluster.pod("db", "1", volumes).await?;
    let claims: Api<PersistentVolumeClaim> = cluster.api();
    let asked = |claim: Option<&PersistentVolumeClaim>| {
        let notes = claim.and_then(|c| c.metadata.annotations.as_ref());
        let node = notes.and_then(|n| n.get("volume.kubernetes.io/selected-node"));
        node.map(String::as_str) == Some("n1")
    };
    let asked = await_condition(claims.clone(), "data", asked);
    tokio::time::timeout(Duration::from_secs(20), asked).await??;
    let pod = cluster.api::<Pod>().get("db").await?;
    assert_eq!(node_of(Some(&pod)), None, "bound before its claim");
    // The binder's part.
    let bound = json!({"spec": {"volumeName": "pv-1"}});
    claims
        .patch("data", &PatchParams::default(), &Patch::Merge(bound))
        .await?;
    let phase = json!({"status": {"phase": "Bound"}});
    claims
        .patch_status("data", &PatchParams::default(), &Patch::Merge(phase))
        .await?;
    cluster.until_on("db", "n1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_important_pod_takes_the_place_of_another() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "1", json!({})).await?;
    cluster.pod("batch", "1", json!({})).await?;
    cluster.until_on("batch", "n1").await?;
    let critical = json!({"priorityClassName": "system-node-critical"});
    cluster.pod("critical", "1", critical).await?;
    let pods: Api<Pod> = cluster.api();
    let leaving = |pod: Option<&Pod>| pod.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
    let leaving = await_condition(pods.clone(), "batch", leaving);
    tokio::time::timeout(Duration::from_secs(20), leaving).await??;
    let nominated = |pod: Option<&Pod>| {
        let status = pod.and_then(|p| p.status.as_ref());
        status.and_then(|s| s.nominated_node_name.as_deref()) == Some("n1")
    };
    cluster.until("critical", "nominated", nominated).await?;
    // The node agent's part.
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods.delete("batch", &now).await?;
    cluster.until_on("critical", "n1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_scheduler_carries_on() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.node("n1", "1", json!({})).await?;
    cluster.pod("first", "1", json!({})).await?;
    cluster.until_on("first", "n1").await?;
    cluster.schedule();
    cluster.pod("second", "1", json!({})).await?;
    let full = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are \
                available: 1 No preemption victims found for incoming pod.";
    cluster.until_unschedulable("second", full).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_other_schedulers_are_left_alone() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.node("n1", "4", json!({})).await?;
    let other = json!({"schedulerName": "another"});
    cluster.pod("theirs", "1", other).await?;
    cluster.pod("ours", "1", json!({})).await?;
    cluster.until_on("ours", "n1").await?;
    let theirs = cluster.api::<Pod>().get("theirs").await?;
    assert_eq!(node_of(Some(&theirs)), None);
    Ok(())
}
