//! The addresses of a Service are those of its ready pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::frame::{Cluster, create, deployment, eventually};

#[tokio::test]
async fn a_service_has_the_addresses_of_its_ready_pods() {
    let cluster = Cluster::start().await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    create(&cluster.api::<Service>(), service).await;
    create(&cluster.api::<Deployment>(), deployment("v1", 3)).await;
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("three ready endpoints", || async {
        let slices = cluster.api::<EndpointSlice>().list(&of_web).await.unwrap();
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let ready =
            endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.count() == 3
    })
    .await;
    eventually("the same in the legacy form", || async {
        let legacy = cluster.api::<Endpoints>().get_opt("web").await.unwrap();
        let subsets = legacy.and_then(|legacy| legacy.subsets).unwrap_or_default();
        let addresses = subsets
            .iter()
            .flat_map(|subset| subset.addresses.iter().flatten());
        addresses.count() == 3
    })
    .await;
    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("both to go with the service", || async {
        let slices = cluster.api::<EndpointSlice>().list(&of_web).await.unwrap();
        let legacy = cluster.api::<Endpoints>().get_opt("web").await.unwrap();
        slices.items.is_empty() && legacy.is_none()
    })
    .await;
}
