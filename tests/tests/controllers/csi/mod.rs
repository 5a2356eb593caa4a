//! The control side of storage drivers, with a driver that speaks gRPC and has no storage.

mod attach;
mod change;
mod copies;
mod driver;
mod provision;

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::driver::Fake;
use crate::frame::{Cluster, create, eventually};
use crate::volumes::phase;

const DRIVER: &str = "fake.example.com";

/// A cluster with the driver on nodes `n1` and `n2`, in zones of their own, and a class `fake`.
async fn cluster() -> (Cluster, Fake) {
    let fake = Fake::default();
    let config = peapod_controllers::Config {
        csi: peapod_controllers::csi::Dialer::new(fake.clone()),
        ..Default::default()
    };
    let cluster = Cluster::with(config).await;
    let spec = json!({"attachRequired": true, "storageCapacity": true});
    create(
        &cluster.cluster::<CSIDriver>(),
        json!({"metadata": {"name": DRIVER}, "spec": spec}),
    )
    .await;
    let classes = cluster.cluster::<StorageClass>();
    let class = json!({
        "metadata": {"name": "fake"}, "provisioner": DRIVER, "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate", "allowVolumeExpansion": true, "parameters": {"kind": "air"},
    });
    create(&classes, class).await;
    for name in ["n1", "n2"] {
        let labels = json!({"zone": name});
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
        create(&cluster.cluster::<Node>(), node).await;
        let driver =
            json!({"name": DRIVER, "nodeID": format!("id-{name}"), "topologyKeys": ["zone"]});
        let csi = json!({"metadata": {"name": name}, "spec": {"drivers": [driver]}});
        create(&cluster.cluster::<CSINode>(), csi).await;
    }
    (cluster, fake)
}

fn claim(name: &str, spec: Value) -> Value {
    let mut claim = json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "fake", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    json_patch::merge(&mut claim["spec"], &spec);
    claim
}

async fn bound(cluster: &Cluster, name: &str) -> PersistentVolumeClaim {
    let claims = cluster.api::<PersistentVolumeClaim>();
    eventually(&format!("claim {name} is bound"), || async {
        phase(&claims, name).await.as_deref() == Some("Bound")
    })
    .await;
    claims.get(name).await.unwrap()
}

async fn delete<K>(api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

/// Whether an object's events have a reason and say something.
async fn said(cluster: &Cluster, about: &str, reason: &str, words: &str) -> bool {
    let events = cluster
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    events.iter().any(|event| {
        event.involved_object.name.as_deref() == Some(about)
            && event.reason.as_deref() == Some(reason)
            && event
                .message
                .as_deref()
                .is_some_and(|message| message.contains(words))
    })
}

fn capacity(claim: &PersistentVolumeClaim) -> String {
    let capacity = claim
        .status
        .as_ref()
        .and_then(|status| status.capacity.as_ref());
    capacity
        .map(|all| all["storage"].0.clone())
        .unwrap_or_default()
}

async fn eventually_is(
    claims: &Api<PersistentVolumeClaim>,
    name: &str,
    what: &str,
    is: impl Fn(&PersistentVolumeClaim) -> bool,
) {
    let is = &is;
    eventually(what, || async move { is(&claims.get(name).await.unwrap()) }).await;
}
