//! Quotas are never exceeded, however many write at a time, and what is deleted is given back.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::frame::{Cluster, create, eventually, patch};

async fn used(quotas: &Api<ResourceQuota>, name: &str) -> Option<String> {
    let status = quotas.get("q").await.unwrap().status?;
    status.used?.get(name).map(|amount| amount.0.clone())
}

#[tokio::test]
async fn as_many_as_the_quota_says() {
    let cluster = Cluster::start().await;
    let (quotas, secrets) = (cluster.api::<ResourceQuota>(), cluster.api::<Secret>());
    create(&secrets, json!({"metadata": {"name": "before"}})).await;
    let hard = json!({"secrets": "10", "pods": "1"});
    create(
        &quotas,
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}),
    )
    .await;
    eventually("the count of what was there", || async {
        used(&quotas, "secrets").await.as_deref() == Some("1")
    })
    .await;
    let creations = (0..40).map(|number| {
        let secrets = secrets.clone();
        async move {
            let secret =
                serde_json::from_value(json!({"metadata": {"name": format!("s{number}")}}));
            secrets
                .create(&PostParams::default(), &secret.unwrap())
                .await
        }
    });
    let results = join_all(creations).await;
    let refusals: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!(refusals.len(), 31, "{refusals:?}");
    let told = refusals[0].to_string();
    let why = "exceeded quota: q, requested: secrets=1, used: secrets=10, limited: secrets=10";
    assert!(told.contains(why), "{told}");
    assert_eq!(used(&quotas, "secrets").await.as_deref(), Some("10"));
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let secret = serde_json::from_value(json!({"metadata": {"name": "dry"}}));
    let told = secrets.create(&dry, &secret.unwrap()).await.unwrap_err();
    assert!(
        told.to_string().contains(why),
        "a dry run is refused as well: {told}"
    );
    secrets
        .delete("before", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(used(&quotas, "secrets").await.as_deref(), Some("9"));

    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create(&cluster.api::<Pod>(), pod("a")).await;
    let second = serde_json::from_value(pod("b")).unwrap();
    let refused = cluster
        .api::<Pod>()
        .create(&PostParams::default(), &second)
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("exceeded quota: q, requested: pods=1")
    );

    patch(
        &quotas,
        "q",
        json!({"spec": {"hard": {"pods": "2", "secrets": "10"}}}),
    )
    .await;
    eventually("the new limit to count", || async {
        let status = quotas.get("q").await.unwrap().status.unwrap();
        status.hard.unwrap()["pods"].0 == "2"
    })
    .await;
    create(&cluster.api::<Pod>(), pod("b")).await;
    assert_eq!(used(&quotas, "pods").await.as_deref(), Some("2"));
}
