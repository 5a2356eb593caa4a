//! A cluster in which nothing changes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use serde_json::json;

use super::frame::{Cluster, create, deployment, eventually, rolled_out};

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let cluster = Cluster::start().await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    create(
        &cluster.cluster::<Node>(),
        json!({"metadata": {"name": "n1"}}),
    )
    .await;
    eventually("the rollout", || rolled_out(&cluster, 3)).await;
    let revision = || async {
        let listed = cluster
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        listed.metadata.resource_version
    };
    // Settled when a second passes without a write; it never does if loops wake each other.
    eventually("a second without a write", || async {
        let before = revision().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        before == revision().await
    })
    .await;
}
