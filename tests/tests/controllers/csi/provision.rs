//! Volumes made for claims and deleted with them.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tonic::Code;

use super::{bound, claim, cluster, delete, said};
use crate::frame::{count, create, eventually};

#[tokio::test]
async fn volumes_are_made_for_claims_and_deleted_with_them() {
    let (cluster, fake) = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    create(&claims, claim("data", json!({}))).await;
    let data = bound(&cluster, "data").await;
    let name = format!("pvc-{}", data.metadata.uid.unwrap());
    let volume = cluster
        .cluster::<PersistentVolume>()
        .get(&name)
        .await
        .unwrap();
    let spec = volume.spec.unwrap();
    assert_eq!(spec.csi.unwrap().volume_handle, format!("vol-of-{name}"));
    assert!(spec.node_affinity.is_some());
    assert_eq!(spec.storage_class_name.as_deref(), Some("fake"));
    let asked = fake.0.lock().volumes[&name].0.clone();
    assert_eq!(asked.parameters["kind"], "air");
    assert_eq!(asked.parameters["csi.storage.k8s.io/pvc/name"], "data");
    assert_eq!(asked.accessibility_requirements.unwrap().requisite.len(), 2);
    eventually("it is told", || {
        said(&cluster, "data", "ProvisioningSucceeded", &name)
    })
    .await;
    eventually("the claim is held no more", || async {
        let data = claims.get("data").await.unwrap();
        !data
            .finalizers()
            .iter()
            .any(|one| one.contains("csi.peapod.dev"))
    })
    .await;

    delete(&claims, "data").await;
    let volumes = cluster.cluster::<PersistentVolume>();
    eventually("the volume is gone", || async {
        count(&volumes).await == 0
    })
    .await;
    assert!(fake.0.lock().volumes.is_empty());
    let mut calls = fake.0.lock().calls.clone();
    calls.retain(|call| *call != "GetCapacity");
    // Deleting is asked for again when somebody else wrote the volume meanwhile.
    calls.dedup();
    assert_eq!(calls, ["CreateVolume", "DeleteVolume"]);
}

#[tokio::test]
async fn a_refused_volume_is_told_of_and_none_is_left_behind() {
    let (cluster, fake) = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    fake.0
        .lock()
        .faults
        .push(("CreateVolume", Code::InvalidArgument, false));
    create(&claims, claim("later", json!({}))).await;
    let words = "code = InvalidArgument desc = CreateVolume was told to fail";
    eventually("the driver's words", || {
        said(&cluster, "later", "ProvisioningFailed", words)
    })
    .await;
    bound(&cluster, "later").await;

    // The volume is made, but the answer is lost, again and again: then the claim goes.
    let lost = ("CreateVolume", Code::Unavailable, true);
    fake.0.lock().faults.extend([lost; 2]);
    create(&claims, claim("lost", json!({}))).await;
    eventually("it is made", || async { fake.0.lock().volumes.len() == 2 }).await;
    eventually("it is told", || {
        said(&cluster, "lost", "ProvisioningFailed", "Unavailable")
    })
    .await;
    delete(&claims, "lost").await;
    eventually("the claim is let go", || async {
        claims.get_opt("lost").await.unwrap().is_none()
    })
    .await;
    assert_eq!(fake.0.lock().volumes.len(), 1);
    assert_eq!(count(&cluster.cluster::<PersistentVolume>()).await, 1);
}

#[tokio::test]
async fn room_is_told_where_it_is() {
    let (cluster, _) = cluster().await;
    let capacities: Api<CSIStorageCapacity> =
        Api::namespaced(cluster.client.clone(), "kube-system");
    let shown = || async {
        let all = capacities.list(&ListParams::default()).await.unwrap();
        let all = all.into_iter().map(|one| {
            let place = one.node_topology.unwrap().match_labels.unwrap();
            (place["zone"].clone(), one.capacity.unwrap().0)
        });
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    };
    let expected = |size: &str| {
        [
            ("n1".to_owned(), size.to_owned()),
            ("n2".to_owned(), size.to_owned()),
        ]
    };
    eventually("both zones", || async {
        shown().await == expected("100Gi")
    })
    .await;
    create(
        &cluster.api::<PersistentVolumeClaim>(),
        claim("data", json!({})),
    )
    .await;
    eventually("less room", || async { shown().await == expected("99Gi") }).await;
    delete(&cluster.cluster::<StorageClass>(), "fake").await;
    eventually("nothing", || async { shown().await.is_empty() }).await;
}
