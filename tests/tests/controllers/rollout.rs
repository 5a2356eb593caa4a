//! Deployments, their ReplicaSets and pods: rollouts, replacement, adoption, deletion.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::frame::{Cluster, count, create, deployment, eventually, patch, rolled_out};

#[tokio::test]
async fn a_deployment_rolls_out_scales_and_rolls_back() {
    let cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    create(&deployments, deployment("v1", 3)).await;
    eventually("the first rollout", || rolled_out(&cluster, 3)).await;

    patch(&deployments, "web", json!({"spec": {"replicas": 5}})).await;
    eventually("scaling up", || rolled_out(&cluster, 5)).await;
    assert_eq!(count(&sets).await, 1);

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
    patch(&deployments, "web", image("v2")).await;
    eventually("the second rollout", || async {
        rolled_out(&cluster, 5).await && count(&sets).await == 2
    })
    .await;
    patch(&deployments, "web", image("v1")).await;
    eventually("the rollback", || async {
        let web = deployments.get("web").await.unwrap();
        let revision = web
            .annotations()
            .get("deployment.kubernetes.io/revision")
            .cloned();
        rolled_out(&cluster, 5).await && revision.as_deref() == Some("3")
    })
    .await;
    assert_eq!(count(&sets).await, 2, "the old ReplicaSet is used again");
    eventually("the old pods to go", || async {
        count(&cluster.api::<Pod>()).await == 5
    })
    .await;
    eventually("the event of the scaling", || async {
        let events = cluster
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        events.iter().any(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            message.starts_with("Scaled up replica set web-") && message.ends_with("from 0 to 3")
        })
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_is_replaced_and_an_orphan_adopted() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<Deployment>(), deployment("v1", 2)).await;
    eventually("the rollout", || rolled_out(&cluster, 2)).await;
    let first = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    pods.delete(&first.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    eventually("another pod in its place", || async {
        let now = pods.list(&ListParams::default()).await.unwrap();
        now.items.len() == 2 && now.iter().all(|pod| pod.uid() != first.uid())
    })
    .await;

    // Without its label a pod is let go of; with it again it is taken back, or is one too many.
    let second = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    patch(
        &pods,
        &second.name_any(),
        json!({"metadata": {"labels": {"app": "other"}}}),
    )
    .await;
    eventually("the pod to be released and replaced", || async {
        let released = pods.get(&second.name_any()).await.unwrap();
        released.owner_references().is_empty() && count(&pods).await == 3
    })
    .await;
    patch(
        &pods,
        &second.name_any(),
        json!({"metadata": {"labels": {"app": "web"}}}),
    )
    .await;
    eventually("two pods again", || async { count(&pods).await == 2 }).await;
}

#[tokio::test]
async fn deletion_reaches_the_dependents_as_asked() {
    let cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    let pods = cluster.api::<Pod>();
    for (params, left) in [
        (DeleteParams::background(), 0),
        (DeleteParams::foreground(), 0),
        (DeleteParams::orphan(), 1),
    ] {
        create(&deployments, deployment("v1", 2)).await;
        eventually("the rollout", || rolled_out(&cluster, 2)).await;
        deployments.delete("web", &params).await.unwrap();
        eventually("the deployment to go", || async {
            deployments.get_opt("web").await.unwrap().is_none()
        })
        .await;
        eventually("what depends on it to go, or to be orphaned", || async {
            let found = sets.list(&ListParams::default()).await.unwrap();
            let orphans = found.iter().all(|set| set.owner_references().is_empty());
            found.items.len() == left && orphans && count(&pods).await == left * 2
        })
        .await;
    }
}
