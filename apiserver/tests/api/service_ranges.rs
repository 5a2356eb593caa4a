//! Ranges of Service addresses: from which they are given, to whom, and the IPAddress of each.

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use peapod_apiserver::ApiServer;
use serde_json::{Value, json};

use crate::authz::{of, refused};
use crate::common::{self, admin};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};

/// A server whose own range has one address left, beside that of the `kubernetes` Service.
async fn server() -> (ApiServer, tempfile::TempDir) {
    common::server_with(|config| config.service_cidrs = vec!["10.96.0.0/30".parse().unwrap()]).await
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::default_namespaced(admin(server))
}

fn addresses(server: &ApiServer) -> Api<IPAddress> {
    Api::all(admin(server))
}

async fn make(server: &ApiServer, name: &str, spec: Value) -> kube::Result<String> {
    let mut spec = spec;
    spec["ports"] = json!([{"port": 80}]);
    let service: Service = of(json!({"metadata": {"name": name}, "spec": spec}));
    let made = services(server)
        .create(&PostParams::default(), &service)
        .await?;
    Ok(made
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default())
}

#[tokio::test]
async fn further_ranges_give_addresses_while_they_are_ready() {
    let (server, _dir) = server().await;
    assert_eq!(make(&server, "a", json!({})).await.unwrap(), "10.96.0.2");
    let full = refused(make(&server, "b", json!({})).await);
    assert!(full.message.contains("no IPv4 address is free"), "{full:?}");

    let ranges: Api<ServiceCIDR> = Api::all(admin(&server));
    let more: ServiceCIDR = of(json!({
        "metadata": {"name": "more"}, "spec": {"cidrs": ["192.0.2.0/24"]},
    }));
    ranges.create(&PostParams::default(), &more).await.unwrap();
    let given = make(&server, "b", json!({})).await.unwrap();
    let last: u8 = given.strip_prefix("192.0.2.").unwrap().parse().unwrap();
    assert!(last >= 16, "{given} is of those that are left for who asks");
    let wanted = json!({"clusterIP": "192.0.2.7"});
    assert_eq!(
        make(&server, "c", wanted.clone()).await.unwrap(),
        "192.0.2.7"
    );
    let taken = refused(make(&server, "d", wanted).await);
    assert!(taken.message.contains("already allocated"), "{taken:?}");

    let unready = json!({"status": {"conditions": [{
        "type": "Ready", "status": "False", "reason": "Test", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let params = PatchParams::default();
    let patch = Patch::Merge(unready);
    ranges.patch_status("more", &params, &patch).await.unwrap();
    refused(make(&server, "e", json!({})).await);
    // What has an address keeps it.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}));
    services(&server).patch("c", &params, &patch).await.unwrap();
}

#[tokio::test]
async fn each_address_has_its_ip_address() {
    let (server, _dir) = server().await;
    let address = make(&server, "a", json!({})).await.unwrap();
    let addresses = addresses(&server);
    let known = addresses.list(&ListParams::default()).await.unwrap();
    let mut names: Vec<&str> = known
        .iter()
        .filter_map(|one| one.metadata.name.as_deref())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["10.96.0.1", "10.96.0.2"]);
    let found = addresses.get(&address).await.unwrap();
    let parent = found.spec.parent_ref;
    assert_eq!(
        (parent.resource.as_str(), parent.name.as_str()),
        ("services", "a")
    );
    assert_eq!(parent.namespace.as_deref(), Some("default"));
    let labels = found.metadata.labels.unwrap();
    assert_eq!(
        labels["ipaddress.kubernetes.io/managed-by"],
        "ipallocator.k8s.io"
    );

    // One that is deleted by hand comes back; with its Service it goes.
    addresses
        .delete(&address, &DeleteParams::default())
        .await
        .unwrap();
    let uid = found.metadata.uid;
    let back = async {
        let is_new = |now: &IPAddress| now.metadata.uid != uid;
        while !addresses
            .get_opt(&address)
            .await
            .unwrap()
            .is_some_and(|now| is_new(&now))
        {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(30);
    tokio::time::timeout(bound, back).await.unwrap();
    services(&server)
        .delete("a", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(addresses.get_opt(&address).await.unwrap(), None);
    // What somebody made an IPAddress of is nobody's.
    let held: IPAddress = of(json!({
        "metadata": {"name": address},
        "spec": {"parentRef": {"group": "example.com", "resource": "things", "name": "mine"}},
    }));
    addresses
        .create(&PostParams::default(), &held)
        .await
        .unwrap();
    refused(make(&server, "b", json!({})).await);
    let taken = refused(make(&server, "b", json!({"clusterIP": address})).await);
    assert!(taken.message.contains("already allocated"), "{taken:?}");
}

#[tokio::test]
async fn an_address_may_not_change() {
    let (server, _dir) = common::server().await;
    let (services, params) = (services(&server), PatchParams::default());
    let (one, none) = (
        json!({"clusterIP": "10.96.3.1"}),
        json!({"clusterIP": "None"}),
    );
    make(&server, "one", one.clone()).await.unwrap();
    make(&server, "none", none.clone()).await.unwrap();
    let other = json!({"clusterIP": "10.96.3.3"});
    for (name, spec) in [
        ("one", &other),
        ("one", &none),
        ("none", &one),
        ("none", &other),
    ] {
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = services.patch(name, &params, &patch);
        let told = refused(patched.await).message;
        assert!(
            told.contains("may not change once set"),
            "{name} {spec}: {told}"
        );
    }
    // Another type has none, and back it gets another.
    for (kind, has) in [("ExternalName", false), ("ClusterIP", true)] {
        let spec = json!({"type": kind, "externalName": (!has).then_some("example.com"), "clusterIP": null});
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = services.patch("one", &params, &patch);
        let spec = patched.await.unwrap().spec.unwrap();
        assert_eq!(
            spec.cluster_ip.is_some_and(|ip| !ip.is_empty()),
            has,
            "{kind}"
        );
    }
}
