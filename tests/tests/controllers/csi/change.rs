//! Volumes that grow, and change their attributes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{DRIVER, bound, capacity, claim, cluster, eventually_is, said};
use crate::frame::{create, eventually, patch};

async fn ask_for(claims: &Api<PersistentVolumeClaim>, name: &str, size: &str) {
    let requests = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    patch(claims, name, requests).await;
}

#[tokio::test]
async fn volumes_grow_and_a_refused_growth_gives_way_to_a_smaller_one() {
    let (cluster, fake) = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    fake.0.lock().limit = 5 << 30;
    create(&claims, claim("data", json!({}))).await;
    bound(&cluster, "data").await;
    ask_for(&claims, "data", "2Gi").await;
    eventually_is(&claims, "data", "it has grown", |claim| {
        capacity(claim) == "2Gi"
    })
    .await;
    eventually("it is told", || {
        said(&cluster, "data", "VolumeResizeSuccessful", "succeeded")
    })
    .await;

    ask_for(&claims, "data", "9Gi").await;
    let words = "code = OutOfRange desc = at most 5368709120 bytes";
    eventually("the driver's words", || {
        said(&cluster, "data", "VolumeResizeFailed", words)
    })
    .await;
    let state = |claim: &PersistentVolumeClaim| {
        let status = claim.status.clone().unwrap_or_default();
        status
            .allocated_resource_statuses
            .unwrap_or_default()
            .get("storage")
            .cloned()
    };
    eventually_is(&claims, "data", "it is infeasible", |claim| {
        state(claim).as_deref() == Some("ControllerResizeInfeasible")
    })
    .await;
    // The node has a part in this one, which nobody plays here.
    fake.0.lock().node_expands = true;
    ask_for(&claims, "data", "3Gi").await;
    eventually_is(&claims, "data", "it is the node's turn", |claim| {
        state(claim).as_deref() == Some("NodeResizePending")
    })
    .await;
    let data = claims.get("data").await.unwrap();
    assert_eq!(capacity(&data), "2Gi");
    let volume = data.spec.unwrap().volume_name.unwrap();
    let volume = cluster
        .cluster::<PersistentVolume>()
        .get(&volume)
        .await
        .unwrap();
    assert_eq!(volume.spec.unwrap().capacity.unwrap()["storage"].0, "3Gi");

    // A class that does not allow it.
    patch(
        &cluster.cluster::<StorageClass>(),
        "fake",
        json!({"allowVolumeExpansion": false}),
    )
    .await;
    let more = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": "4Gi"}}}}));
    let refusal = claims
        .patch("data", &PatchParams::default(), &more)
        .await
        .unwrap_err();
    assert!(
        refusal.to_string().contains("must support resize"),
        "{refusal}"
    );
}

#[tokio::test]
async fn volumes_change_their_attributes() {
    let (cluster, fake) = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    create(&claims, claim("data", json!({}))).await;
    let data = bound(&cluster, "data").await;
    let volume = format!("pvc-{}", data.metadata.uid.unwrap());
    patch(
        &claims,
        "data",
        json!({"spec": {"volumeAttributesClassName": "gold"}}),
    )
    .await;
    eventually("that there is none", || {
        said(&cluster, "data", "VolumeModifyFailed", "does not exist")
    })
    .await;
    let classes = cluster.cluster::<VolumeAttributesClass>();
    let gold =
        json!({"metadata": {"name": "gold"}, "driverName": DRIVER, "parameters": {"iops": "9"}});
    create(&classes, gold).await;
    eventually_is(&claims, "data", "it is gold", |claim| {
        let status = claim.status.clone().unwrap_or_default();
        status.current_volume_attributes_class_name.as_deref() == Some("gold")
            && status.modify_volume_status.is_none()
    })
    .await;
    assert_eq!(
        fake.0.lock().modified[&format!("vol-of-{volume}")]["iops"],
        "9"
    );
    let volume = cluster
        .cluster::<PersistentVolume>()
        .get(&volume)
        .await
        .unwrap();
    assert_eq!(
        volume.spec.unwrap().volume_attributes_class_name.as_deref(),
        Some("gold")
    );
}
