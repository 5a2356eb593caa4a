//! Volumes attached where their pods are.

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tonic::Code;

use super::{DRIVER, bound, claim, cluster, delete, said};
use crate::frame::{count, create, eventually};

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
