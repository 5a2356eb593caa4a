//! Addresses of load balancers.

use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use peapod_api::net::{
    ALLOW_SHARED_IP, LOAD_BALANCER_IPS, LOAD_BALANCER_POOL, LoadBalancerAddress, LoadBalancerPool,
};
use serde_json::{Value, json};

use super::frame::{Cluster, count, create, eventually, patch};

/// The addresses that a service shows.
async fn shown(services: &Api<Service>, name: &str) -> Vec<String> {
    let service = services.get(name).await.unwrap();
    let status = service.status.and_then(|status| status.load_balancer);
    let ingress = status.and_then(|balancer| balancer.ingress);
    let ips = ingress.into_iter().flatten().filter_map(|one| one.ip);
    ips.collect()
}

async fn shows(services: &Api<Service>, name: &str, ips: &[&str]) {
    let what = format!("{name} to show {ips:?}");
    eventually(&what, || async { shown(services, name).await == ips }).await;
}

fn service(name: &str, port: u16, annotations: &Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations}, "spec": {
        "type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": port}]}})
}

#[tokio::test]
async fn services_get_addresses_keep_them_and_give_them_back() {
    let cluster = Cluster::start().await;
    let (services, pools) = (
        cluster.api::<Service>(),
        cluster.cluster::<LoadBalancerPool>(),
    );
    let addresses = cluster.cluster::<LoadBalancerAddress>();
    let none = json!({});
    // There before any pool is.
    create(&services, service("first", 80, &none)).await;
    let pool =
        json!({"metadata": {"name": "two"}, "spec": {"addresses": ["198.51.100.1-198.51.100.2"]}});
    create(&pools, pool).await;
    shows(&services, "first", &["198.51.100.1"]).await;
    let asks = json!({LOAD_BALANCER_IPS: "198.51.100.1"});
    create(&services, service("second", 80, &none)).await;
    shows(&services, "second", &["198.51.100.2"]).await;
    create(&services, service("third", 80, &none)).await;
    let events = cluster.api::<Event>();
    eventually("an event about the third", || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        let told = |event: &&Event| {
            event.involved_object.name.as_deref() == Some("third")
                && event.reason.as_deref() == Some("AllocationFailed")
        };
        let event = events.iter().find(told);
        event.is_some_and(|event| {
            event.message.as_deref()
                == Some("all IPv4 addresses of the LoadBalancerPool two are taken")
        })
    })
    .await;
    let refused = pools.delete("two", &DeleteParams::default()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("held by services (default/first, default/second)"),
        "{refused}"
    );
    // What one gives back, another gets that waits.
    patch(&services, "first", json!({"spec": {"type": "ClusterIP"}})).await;
    shows(&services, "third", &["198.51.100.1"]).await;
    shows(&services, "first", &[]).await;
    services
        .delete("third", &DeleteParams::default())
        .await
        .unwrap();
    create(&services, service("asking", 80, &asks)).await;
    shows(&services, "asking", &["198.51.100.1"]).await;
    eventually("the pool's counts", || async {
        let status = pools.get("two").await.unwrap().status;
        let counts = status.map(|status| status.addresses);
        counts.is_some_and(|counts| (counts.total, counts.used, counts.free) == (2, 2, 0))
    })
    .await;
    for name in ["second", "asking"] {
        services
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    eventually("all to be given back", || async {
        count(&addresses).await == 0
    })
    .await;
    pools.delete("two", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn an_address_is_shared_by_agreement_and_families_have_one_each() {
    let cluster = Cluster::start().await;
    let (services, pools) = (
        cluster.api::<Service>(),
        cluster.cluster::<LoadBalancerPool>(),
    );
    let spec = json!({"addresses": ["198.51.100.0/24", "2001:db8::/120"], "autoAssign": false});
    create(&pools, json!({"metadata": {"name": "both"}, "spec": spec})).await;
    let shares = json!({LOAD_BALANCER_POOL: "both", ALLOW_SHARED_IP: "dns"});
    create(&services, service("tcp", 53, &shares)).await;
    shows(&services, "tcp", &["198.51.100.0"]).await;
    create(&services, service("web", 80, &shares)).await;
    shows(&services, "web", &["198.51.100.0"]).await;
    create(&services, service("again", 80, &shares)).await;
    shows(&services, "again", &["198.51.100.1"]).await;
    let addresses = cluster.cluster::<LoadBalancerAddress>();
    let shared = addresses.get("198-51-100-0").await.unwrap();
    let names: Vec<&str> = shared
        .spec
        .services
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["tcp", "web"]);
    // One leaves, the other stays.
    services
        .delete("tcp", &DeleteParams::default())
        .await
        .unwrap();
    eventually("one to be left", || async {
        let shared = addresses.get("198-51-100-0").await.unwrap();
        shared.spec.services.len() == 1
    })
    .await;
    shows(&services, "web", &["198.51.100.0"]).await;
    let mut dual = service("dual", 80, &json!({LOAD_BALANCER_POOL: "both"}));
    dual["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    let dual = create(&services, dual).await;
    let families = dual.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    assert_eq!(
        families.unwrap(),
        ["IPv4", "IPv6"],
        "of {}",
        dual.name_any()
    );
    shows(&services, "dual", &["198.51.100.2", "2001:db8::"]).await;
}
