//! Endpoints that somebody writes by hand, for a service without a selector.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::frame::{Cluster, create, eventually, patch};

const MIRROR: &str =
    "endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io";

/// The addresses of the slices that mirror `outside`.
async fn mirrored(cluster: &Cluster) -> Vec<String> {
    let slices = cluster.api::<EndpointSlice>();
    let slices = slices
        .list(&ListParams::default().labels(MIRROR))
        .await
        .unwrap();
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

#[tokio::test]
async fn endpoints_written_by_hand_are_mirrored() {
    let cluster = Cluster::start().await;
    let (services, endpoints) = (cluster.api::<Service>(), cluster.api::<Endpoints>());
    let service = json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}});
    create(&services, service).await;
    let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"port": 8080}]}]);
    let object = json!({"metadata": {"name": "outside"}, "subsets": subsets("192.0.2.1")});
    create(&endpoints, object).await;
    eventually("the mirror", || async {
        mirrored(&cluster).await == ["192.0.2.1"]
    })
    .await;
    patch(
        &endpoints,
        "outside",
        json!({"subsets": subsets("192.0.2.9")}),
    )
    .await;
    eventually("the change", || async {
        mirrored(&cluster).await == ["192.0.2.9"]
    })
    .await;
    let params = DeleteParams::default();
    endpoints.delete("outside", &params).await.unwrap();
    eventually("the end", || async { mirrored(&cluster).await.is_empty() }).await;
    // The API server writes slices for its own service, which are not doubled.
    let own = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let own = cluster.api::<EndpointSlice>().list(&own).await.unwrap();
    assert!(own.items.len() <= 1, "{own:?}");
}
