//! Snapshots and clones.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use peapod_controllers::csi::snapshot::kinds::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
};
use serde_json::{Value, json};
use tonic::Code;

use super::{DRIVER, bound, claim, cluster, delete, eventually_is, said};
use crate::frame::{Cluster, count, create, eventually};

const SNAPSHOTS: &str = include_str!("../../../../examples/csi/snapshots.yaml");

/// The kinds of snapshots, and a class of them.
async fn with_snapshots(cluster: &Cluster) {
    let definitions = cluster.cluster::<CustomResourceDefinition>();
    for document in SNAPSHOTS.split("\n---\n") {
        let definition: Value = serde_saphyr::from_str(document).unwrap();
        create(&definitions, definition).await;
    }
    let classes = cluster.cluster::<VolumeSnapshotClass>();
    eventually("snapshots are served", || async {
        classes.list(&ListParams::default()).await.is_ok()
    })
    .await;
    let annotations = json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "plain", "annotations": annotations},
        "driver": DRIVER, "deletionPolicy": "Delete",
    });
    let kind = kube::api::ApiResource::erase::<VolumeSnapshotClass>(&());
    let classes = Api::all_with(cluster.client.clone(), &kind);
    let class: kube::api::DynamicObject = serde_json::from_value(class).unwrap();
    classes
        .create(&PostParams::default(), &class)
        .await
        .unwrap();
}

async fn snapshot(cluster: &Cluster, name: &str, source: Value) -> VolumeSnapshot {
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": name}, "spec": {"source": source},
    });
    let snapshots = cluster.api::<VolumeSnapshot>();
    create(&snapshots, snapshot).await;
    eventually(&format!("snapshot {name} is ready"), || async {
        let status = snapshots
            .get(name)
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        status.ready_to_use == Some(true)
    })
    .await;
    snapshots.get(name).await.unwrap()
}

#[tokio::test]
async fn volumes_are_cloned_and_restored() {
    let (cluster, fake) = cluster().await;
    with_snapshots(&cluster).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    create(&claims, claim("data", json!({}))).await;
    let data = bound(&cluster, "data").await;
    let handle = format!("vol-of-pvc-{}", data.metadata.uid.unwrap());

    fake.0
        .lock()
        .faults
        .push(("CreateSnapshot", Code::Unavailable, true));
    let taken = snapshot(
        &cluster,
        "first",
        json!({"persistentVolumeClaimName": "data"}),
    )
    .await;
    let status = taken.status.unwrap();
    assert_eq!(status.restore_size.unwrap().0, "1Gi");
    assert_eq!(
        fake.0.lock().snapshots.values().collect::<Vec<_>>(),
        [&handle]
    );
    eventually_is(&claims, "data", "the claim is let go", |claim| {
        !claim
            .finalizers()
            .iter()
            .any(|one| one.contains("as-source"))
    })
    .await;

    let source = |group: Option<&str>, kind: &str, name: &str| json!({"dataSource": {"apiGroup": group, "kind": kind, "name": name}});
    let group = Some("snapshot.storage.k8s.io");
    create(
        &claims,
        claim("restored", source(group, "VolumeSnapshot", "first")),
    )
    .await;
    create(
        &claims,
        claim("cloned", source(None, "PersistentVolumeClaim", "data")),
    )
    .await;
    create(
        &claims,
        claim("of-nothing", source(group, "VolumeSnapshot", "second")),
    )
    .await;
    for name in ["restored", "cloned"] {
        let made = bound(&cluster, name).await;
        let volume = format!("pvc-{}", made.metadata.uid.unwrap());
        let asked = fake.0.lock().volumes[&volume].0.clone();
        assert!(asked.volume_content_source.is_some(), "{name}");
    }
    eventually("why not", || {
        said(&cluster, "of-nothing", "ProvisioningFailed", "not there")
    })
    .await;

    // One that is there before; it stays when its VolumeSnapshot goes.
    let reference = json!({"kind": "VolumeSnapshot", "namespace": "default", "name": "second"});
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": "by-hand"},
        "spec": {"driver": DRIVER, "deletionPolicy": "Retain", "source": {"snapshotHandle": "snap-of-old"}, "volumeSnapshotRef": reference},
    });
    let contents = cluster.cluster::<VolumeSnapshotContent>();
    create(&contents, content).await;
    snapshot(
        &cluster,
        "second",
        json!({"volumeSnapshotContentName": "by-hand"}),
    )
    .await;
    bound(&cluster, "of-nothing").await;

    let snapshots = cluster.api::<VolumeSnapshot>();
    for name in ["first", "second"] {
        delete(&snapshots, name).await;
    }
    eventually("both are gone", || async { count(&snapshots).await == 0 }).await;
    assert!(fake.0.lock().snapshots.is_empty());
    let left = contents.list(&ListParams::default()).await.unwrap();
    assert_eq!(
        left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["by-hand"]
    );
}
