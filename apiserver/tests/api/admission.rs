//! What the built-in plugins make of writes, as a client sees it.

use kube::Resource;
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::common::{self, Listening};
use crate::kubectl::kubectl;
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::node::v1::RuntimeClass;

struct Cluster {
    client: kube::Client,
    _server: peapod_apiserver::ApiServer,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let (server, dir) = common::server().await;
        let cluster = Self {
            client: common::admin(&server),
            _server: server,
            _dir: dir,
        };
        cluster
            .make::<ServiceAccount>(json!({"metadata": {"name": "default"}}))
            .await;
        cluster
    }

    /// Creates an object; gives it as it is stored, or the message of the refusal.
    async fn create<K>(&self, object: Value) -> Result<Value, String>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let dynamic: kube::api::DynamicObject = serde_json::from_value(object).unwrap();
        let kind = kube::api::ApiResource::erase::<K>(&());
        let api: Api<kube::api::DynamicObject> = match NAMESPACED.contains(&kind.kind.as_str()) {
            true => Api::namespaced_with(self.client.clone(), "default", &kind),
            false => Api::all_with(self.client.clone(), &kind),
        };
        match api.create(&PostParams::default(), &dynamic).await {
            Ok(made) => Ok(serde_json::to_value(made).unwrap()),
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn make<K>(&self, object: Value) -> Value
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        self.create::<K>(object).await.unwrap()
    }
}

const NAMESPACED: [&str; 5] = [
    "Ingress",
    "LimitRange",
    "PersistentVolumeClaim",
    "Pod",
    "ServiceAccount",
];

fn pod(name: &str, container: Value) -> Value {
    let mut container = container;
    container["name"] = "c".into();
    container["image"] = "i".into();
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::start().await;
    let limit =
        json!({"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}});
    cluster
        .make::<LimitRange>(json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}}))
        .await;
    let made = cluster.make::<Pod>(pod("a", json!({}))).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}})
    );
    let greedy = pod("b", json!({"resources": {"limits": {"cpu": "2"}}}));
    assert_eq!(
        cluster.create::<Pod>(greedy).await.unwrap_err(),
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[tokio::test]
async fn classes_are_looked_up_and_defaulted() {
    let cluster = Cluster::start().await;
    let mut lost = pod("a", json!({}));
    lost["spec"]["runtimeClassName"] = "none".into();
    assert_eq!(
        cluster.create::<Pod>(lost.clone()).await.unwrap_err(),
        "pods \"a\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    let class = json!({"metadata": {"name": "none"}, "handler": "runc", "overhead": {"podFixed": {"cpu": "10m"}}});
    cluster.make::<RuntimeClass>(class).await;
    let made = cluster.make::<Pod>(lost).await;
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m"}));

    let default = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "front", "annotations": default}, "spec": {"controller": "a.b/c"}});
    cluster.make::<IngressClass>(class).await;
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
    let made = cluster.make::<Ingress>(ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "front");

    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let made = cluster.make::<PersistentVolumeClaim>(claim).await;
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
}

async fn labelled(to: &Listening, mode: &str, standard: &str) {
    let client = common::admin(&to.server);
    let api: Api<Namespace> = Api::all(client);
    let label = format!("pod-security.kubernetes.io/{mode}");
    let patch = json!({"metadata": {"labels": {label: standard}}});
    let patch = kube::api::Patch::Merge(patch);
    api.patch("default", &Default::default(), &patch)
        .await
        .unwrap();
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {hostNetwork: true, containers: [{name: web, image: i}]}
";
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod_security_refuses_and_warns() {
    let to = common::listening().await;
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n";
    kubectl(&to, "apply -f -", account).await.unwrap();
    labelled(&to, "enforce", "baseline").await;
    labelled(&to, "warn", "baseline").await;
    let told = kubectl(&to, "apply -f -", POD).await.unwrap_err();
    let broken = "violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert!(told.contains(broken), "{told}");
    // A template is let pass with a warning, which --warnings-as-errors makes visible.
    let told = kubectl(&to, "apply --warnings-as-errors -f -", DEPLOYMENT)
        .await
        .unwrap_err();
    assert!(
        told.contains(&format!("would {}", broken.replace("violates", "violate"))),
        "{told}"
    );
    // Labels that cannot be read are refused; pods that a new level would refuse are told of.
    let label = "label --overwrite namespace default pod-security.kubernetes.io";
    let told = kubectl(&to, &format!("{label}/enforce=basic"), "").await;
    let told = told.unwrap_err();
    assert!(
        told.contains("must be one of privileged, baseline"),
        "{told}"
    );
    labelled(&to, "enforce", "privileged").await;
    kubectl(&to, "apply -f -", POD).await.unwrap();
    let stricter = format!("{label}/enforce=baseline --warnings-as-errors");
    let told = kubectl(&to, &stricter, "").await.unwrap_err();
    let there = "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"";
    assert!(told.contains(there), "{told}");
    assert!(told.contains("p: host namespaces"), "{told}");
    to.stop.cancel();
}
