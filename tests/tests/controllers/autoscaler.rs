//! HorizontalPodAutoscalers, as far as they need no load.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;

use super::frame::{Cluster, create, deployment, eventually, patch, rolled_out};

/// Status and reason of a condition of the autoscaler `web`.
async fn condition(cluster: &Cluster, kind: &str) -> Option<(String, String)> {
    let hpa = cluster
        .api::<HorizontalPodAutoscaler>()
        .get("web")
        .await
        .unwrap();
    let conditions = hpa.status?.conditions?;
    let condition = conditions
        .into_iter()
        .find(|condition| condition.type_ == kind)?;
    Some((condition.status, condition.reason?))
}

async fn has(cluster: &Cluster, kind: &str, status: &str, reason: &str) {
    let wanted = Some((status.to_owned(), reason.to_owned()));
    eventually(&format!("{kind} {reason}"), || async {
        condition(cluster, kind).await == wanted
    })
    .await;
}

#[tokio::test]
async fn an_autoscaler_keeps_to_its_bounds_and_says_what_it_cannot_find_out() {
    let cluster = Cluster::start().await;
    let autoscalers = cluster.api::<HorizontalPodAutoscaler>();
    let hpa = json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 3, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
            }}],
        },
    });
    create(&autoscalers, hpa).await;
    has(&cluster, "AbleToScale", "False", "FailedGetScale").await;

    // A change of the object has it looked at again at once.
    create(&cluster.api::<Deployment>(), deployment("v1", 1)).await;
    let more = |max: i32| json!({"spec": {"maxReplicas": max}});
    patch(&autoscalers, "web", more(5)).await;
    eventually("as many pods as the least", || rolled_out(&cluster, 3)).await;
    has(&cluster, "AbleToScale", "True", "SucceededRescale").await;
    patch(&autoscalers, "web", more(6)).await;
    has(
        &cluster,
        "ScalingActive",
        "False",
        "FailedGetResourceMetric",
    )
    .await;
    let patched = json!({"spec": {"minReplicas": 1, "maxReplicas": 2}});
    patch(&autoscalers, "web", patched).await;
    eventually("as few as the most", || rolled_out(&cluster, 2)).await;
    let hpa = autoscalers.get("web").await.unwrap().status.unwrap();
    assert_eq!(hpa.desired_replicas, 2);
    assert!(hpa.last_scale_time.is_some());
}
