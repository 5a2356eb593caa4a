//! Claims and the volumes that they are bound to.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::frame::{Cluster, create, eventually, patch};

fn claim(name: &str, class: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }})
}

pub async fn phase(claims: &Api<PersistentVolumeClaim>, name: &str) -> Option<String> {
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
