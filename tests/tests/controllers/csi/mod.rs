//! The control side of storage drivers, with a driver that speaks gRPC and has no storage.

mod driver;

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use peapod_controllers::csi::snapshot::kinds::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::Code;

use self::driver::Fake;
use super::frame::{Cluster, count, create, eventually, patch};
use super::volumes::phase;

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

fn pod(name: &str, node: &str, claim: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "nodeName": node,
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
    }})
}

#[tokio::test]
async fn volumes_move_with_their_pods() {
    let (cluster, fake) = cluster().await;
    let (claims, pods) = (cluster.api::<PersistentVolumeClaim>(), cluster.api::<Pod>());
    create(&claims, claim("data", json!({}))).await;
    let data = bound(&cluster, "data").await;
    let handle = format!("vol-of-pvc-{}", data.metadata.uid.unwrap());
    let at = |node: &str| [(handle.clone(), format!("id-{node}"))].into();

    fake.0
        .lock()
        .faults
        .push(("ControllerPublishVolume", Code::Internal, false));
    create(&pods, pod("first", "n1", "data")).await;
    eventually("the fault is told", || {
        said(&cluster, "first", "FailedAttachVolume", "told to fail")
    })
    .await;
    eventually("attached", || {
        said(&cluster, "first", "SuccessfulAttachVolume", "pvc-")
    })
    .await;
    assert_eq!(fake.0.lock().published, at("n1"));
    let attachments = cluster.cluster::<VolumeAttachment>();
    let only = attachments
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    let status = only.status.unwrap();
    assert_eq!(status.attachment_metadata.unwrap()["device"], "/dev/fake");
    assert!(status.attach_error.is_none());
    let nodes = cluster.cluster::<Node>();
    let attached = |name: &'static str| {
        let nodes = nodes.clone();
        async move {
            let status = nodes.get(name).await.unwrap().status.unwrap_or_default();
            status.volumes_attached.unwrap_or_default().len()
        }
    };
    eventually("the node is told", || async { attached("n1").await == 1 }).await;

    // The node still has it mounted: it stays there, and who waits is told.
    let in_use = json!({"status": {"volumesInUse": [format!("kubernetes.io/csi/{DRIVER}^{handle}")],
        "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m"}]}});
    let params = PatchParams::default();
    nodes
        .patch_status("n1", &params, &Patch::Merge(in_use))
        .await
        .unwrap();
    create(&pods, pod("second", "n2", "data")).await;
    eventually("it is told", || {
        said(
            &cluster,
            "second",
            "FailedAttachVolume",
            "already used by pod(s) first",
        )
    })
    .await;
    pods.delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let free = json!({"status": {"volumesInUse": null}});
    assert_eq!(fake.0.lock().published, at("n1"));
    nodes
        .patch_status("n1", &params, &Patch::Merge(free))
        .await
        .unwrap();
    eventually("it moved", || async { fake.0.lock().published == at("n2") }).await;
    eventually("attached", || {
        said(&cluster, "second", "SuccessfulAttachVolume", "pvc-")
    })
    .await;
    eventually("the first node is told", || async {
        attached("n1").await == 0
    })
    .await;

    pods.delete("second", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    delete(&claims, "data").await;
    eventually("all is gone", || async {
        fake.0.lock().volumes.is_empty() && count(&attachments).await == 0
    })
    .await;
    assert!(fake.0.lock().published.is_empty());
}

async fn ask_for(claims: &Api<PersistentVolumeClaim>, name: &str, size: &str) {
    let requests = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    patch(claims, name, requests).await;
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
