//! Where pods have been: recorded from what happens to them, kept over restarts, read only.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams,
};
use peapod_api::net::{Arrival, Departure, Placement};
use peapod_apiserver::{ApiServer, Config, Engine};
use serde_json::json;

use crate::authz::{create, refused};
use crate::common::{self, admin};

fn pods(server: &ApiServer) -> Api<Pod> {
    Api::namespaced(admin(server), "default")
}

fn placements(server: &ApiServer) -> Api<Placement> {
    Api::namespaced(admin(server), "default")
}

/// A pod of the ReplicaSet `web`.
async fn start(server: &ApiServer, name: &str, node: &str, address: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin(server), "default");
    if accounts.get_opt("default").await.unwrap().is_none() {
        create(accounts, json!({"metadata": {"name": "default"}})).await;
    }
    let pod = json!({
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r1", "controller": true,
        }]},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    });
    create(pods(server), pod).await;
    let status = json!({"status": {"podIPs": [{"ip": address}]}});
    pods(server)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

async fn stop(server: &ApiServer, name: &str) {
    let now = DeleteParams::default().grace_period(0);
    pods(server).delete(name, &now).await.unwrap();
}

/// Waits until a list of placements is as it should be.
async fn until(
    server: &ApiServer,
    selector: &str,
    good: impl Fn(&[Placement]) -> bool,
) -> Vec<Placement> {
    let asked = ListParams::default().fields(selector);
    let waiting = async {
        loop {
            let found = placements(server).list(&asked).await.unwrap().items;
            if good(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("the placements become as they should be")
}

#[tokio::test]
async fn a_replacement_names_what_it_replaces() {
    let (server, _dir) = common::server().await;
    start(&server, "web-a", "n1", "10.0.0.1").await;
    until(&server, "podName=web-a", |found| {
        found.len() == 1 && found[0].spec.addresses == ["10.0.0.1"]
    })
    .await;
    stop(&server, "web-a").await;
    start(&server, "web-b", "n2", "10.0.1.1").await;
    let found = until(&server, "spec.workload=ReplicaSet/web", |found| {
        found.len() == 2 && found[1].spec.addresses == ["10.0.1.1"]
    })
    .await;
    assert_eq!(found[0].spec.end_reason, Some(Departure::Deleted));
    assert!(found[0].spec.to.is_some());
    assert_eq!(found[1].spec.reason, Arrival::Rescheduled);
    assert_eq!(found[1].spec.after, Some(Departure::Deleted));
    assert_eq!(found[1].spec.replaces.as_deref(), Some("web-a on n1"));
    for (selector, name) in [
        ("node=n2", "web-b"),
        ("spec.ip=10.0.0.1", "web-a"),
        ("node!=n2", "web-a"),
    ] {
        let found = until(&server, selector, |found| found.len() == 1).await;
        assert_eq!(found[0].spec.pod_name, name, "{selector}");
    }
    let named = placements(&server).get(&found[0].name_any()).await.unwrap();
    assert_eq!(json!(named), json!(found[0]));
}

#[tokio::test]
async fn an_eviction_from_a_cordoned_node_is_a_drain() {
    let (server, _dir) = common::server().await;
    let nodes: Api<Node> = Api::all(admin(&server));
    create(
        nodes,
        json!({"metadata": {"name": "n1"}, "spec": {"unschedulable": true}}),
    )
    .await;
    start(&server, "web-a", "n1", "10.0.0.1").await;
    let eviction = EvictParams::default();
    pods(&server).evict("web-a", &eviction).await.unwrap();
    // As the node does when the containers have ended.
    stop(&server, "web-a").await;
    let found = until(&server, "", |found| {
        found.len() == 1 && found[0].spec.to.is_some()
    })
    .await;
    assert_eq!(found[0].spec.end_reason, Some(Departure::Drained));
}

#[tokio::test]
async fn history_outlives_the_server_without_duplicates() {
    let dir = tempfile::tempdir().unwrap();
    let config = || Config {
        engine: Engine::Sled,
        ..Config::new(dir.path())
    };
    let server = ApiServer::start(config()).await.unwrap();
    start(&server, "web-a", "n1", "10.0.0.1").await;
    start(&server, "web-b", "n1", "10.0.0.2").await;
    let before = until(&server, "", |found| {
        found.len() == 2 && found.iter().all(|one| one.spec.addresses.len() == 1)
    })
    .await;
    server.close().await;
    drop(server);
    // The lock of the store goes with the last that uses it.
    let server = loop {
        match ApiServer::start(config()).await {
            Ok(server) => break server,
            Err(fault) => {
                assert!(fault.to_string().contains("store"), "{fault}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let after = until(&server, "", |found| found.len() == 2).await;
    assert_eq!(json!(after), json!(before));
    stop(&server, "web-a").await;
    let after = until(&server, "", |found| found[0].spec.to.is_some()).await;
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].uid(), before[0].uid());
}

#[tokio::test]
async fn a_watch_tells_of_changes_from_a_version_on() {
    let (server, _dir) = common::server().await;
    start(&server, "web-a", "n1", "10.0.0.1").await;
    until(&server, "ip=10.0.0.1", |found| found.len() == 1).await;
    let listed = placements(&server)
        .list(&ListParams::default())
        .await
        .unwrap();
    let version = listed.metadata.resource_version.unwrap();
    let all = WatchParams::default();
    let mut events = placements(&server)
        .watch(&all, &version)
        .await
        .unwrap()
        .boxed();
    stop(&server, "web-a").await;
    start(&server, "web-b", "n2", "10.0.1.1").await;
    let mut seen = Vec::new();
    let waiting = async {
        while seen.len() < 2 {
            match events.next().await.unwrap().unwrap() {
                WatchEvent::Added(one) => seen.push(format!("added {}", one.spec.pod_name)),
                WatchEvent::Modified(one) if one.spec.pod_name == "web-a" => {
                    seen.push(format!("modified {}", one.spec.pod_name));
                }
                WatchEvent::Modified(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
    assert_eq!(seen, ["modified web-a", "added web-b"]);
}

#[tokio::test]
async fn pages_follow_one_another() {
    let (server, _dir) = common::server().await;
    for nth in 0..5 {
        start(
            &server,
            &format!("web-{nth}"),
            "n1",
            &format!("10.0.0.{nth}"),
        )
        .await;
    }
    until(&server, "", |found| found.len() == 5).await;
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(2);
    loop {
        let found = placements(&server).list(&page).await.unwrap();
        names.extend(found.items.iter().map(|one| one.spec.pod_name.clone()));
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(2).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["web-0", "web-1", "web-2", "web-3", "web-4"]);
}

#[tokio::test]
async fn a_span_of_time_keeps_what_was_there() {
    let (server, _dir) = common::server().await;
    start(&server, "web-a", "n1", "10.0.0.1").await;
    until(&server, "ip=10.0.0.1", |found| found.len() == 1).await;
    let count = async |query: &str| {
        let path = format!("/apis/net.peapod.dev/v1/placements?{query}");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let reply: Result<serde_json::Value, _> = admin(&server).request(request).await;
        reply.map(|list| list["items"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(count("since=2020-01-01T00:00:00Z").await.unwrap(), 1);
    assert_eq!(count("until=2020-01-01T00:00:00Z").await.unwrap(), 0);
    let told = refused(count("since=yesterday").await);
    assert!(told.message.contains("RFC 3339"), "{}", told.message);
}

#[tokio::test]
async fn nobody_writes_them_and_bad_questions_are_refused() {
    let (server, _dir) = common::server().await;
    start(&server, "web-a", "n1", "10.0.0.1").await;
    let found = until(&server, "", |found| found.len() == 1).await;
    let name = found[0].name_any();
    let told = refused(
        placements(&server)
            .delete(&name, &DeleteParams::default())
            .await,
    );
    assert_eq!(told.code, 405);
    let told = refused(placements(&server).get("web-a.ff").await);
    assert_eq!(told.code, 404);
    let asked = ListParams::default().fields("spec.colour=red");
    let told = refused(placements(&server).list(&asked).await);
    assert!(told.message.contains("spec.workload"), "{}", told.message);
    let nobody: Api<Placement> = Api::namespaced(server.client("jane", &[]), "default");
    assert_eq!(refused(nobody.list(&ListParams::default()).await).code, 403);
}
