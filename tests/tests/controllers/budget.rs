//! How many pods may go at a time, by their budget.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::frame::{Cluster, create, deployment, eventually};

#[tokio::test]
async fn a_budget_says_how_many_pods_may_go() {
    let cluster = Cluster::start().await;
    let budgets = cluster.api::<PodDisruptionBudget>();
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = json!({"maxUnavailable": 1, "selector": selector});
    create(&budgets, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    let allows = async |allowed: i32, expected: i32| {
        let status = budgets.get("web").await.unwrap().status.unwrap_or_default();
        status.disruptions_allowed == Some(allowed) && status.expected_pods == Some(expected)
    };
    eventually("one of three to be spared", || allows(1, 3)).await;
    let pods = cluster.api::<Pod>();
    let pod = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    patch_ready(&pods, &pod.name_any(), "False").await;
    eventually("none to be spared", || allows(0, 3)).await;
}

async fn patch_ready(pods: &Api<Pod>, name: &str, ready: &str) {
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let patch = Patch::Merge(status);
    pods.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
