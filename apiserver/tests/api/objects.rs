//! What a client sees: objects created, read, changed, watched and deleted.

use crate::common;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::{Value, json};

fn config_map(name: &str, key: &str, text: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {key: text}})).unwrap()
}

async fn account(client: &kube::Client, namespace: &str) {
    let api: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    api.create(&PostParams::default(), &account).await.unwrap();
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn create_read_update_delete() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    let made = api
        .create(&PostParams::default(), &config_map("a", "k", "1"))
        .await
        .unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.resource_version.is_some());
    let again = api
        .create(&PostParams::default(), &config_map("a", "k", "1"))
        .await;
    let Err(kube::Error::Api(status)) = again else {
        panic!("created twice");
    };
    assert_eq!(status.message, r#"configmaps "a" already exists"#);

    let mut newer = made.clone();
    newer.data = Some([("k".to_owned(), "2".to_owned())].into());
    let updated = api
        .replace("a", &PostParams::default(), &newer)
        .await
        .unwrap();
    assert_ne!(
        updated.metadata.resource_version,
        made.metadata.resource_version
    );
    let Err(kube::Error::Api(status)) = api.replace("a", &PostParams::default(), &newer).await
    else {
        panic!("an old version was accepted");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "nowhere");
    let Err(kube::Error::Api(status)) = api
        .create(&PostParams::default(), &config_map("a", "k", "1"))
        .await
    else {
        panic!("created");
    };
    assert_eq!(status.message, r#"namespaces "nowhere" not found"#);
}

#[tokio::test]
async fn bad_objects_are_refused_field_by_field() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    let Err(kube::Error::Api(status)) = api
        .create(&PostParams::default(), &config_map("Bad_Name", "k", "1"))
        .await
    else {
        panic!("created");
    };
    assert_eq!(status.code, 422);
    let details = status.details.unwrap();
    assert_eq!(details.causes[0].field, "metadata.name");
}

#[tokio::test]
async fn pages_of_one_snapshot() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    for i in 0..7 {
        let map = config_map(&format!("m{i}"), "k", "1");
        api.create(&PostParams::default(), &map).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(first.items.len(), 3);
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    api.delete("m5", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let rest = api
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap();
    let names: Vec<String> = rest
        .items
        .into_iter()
        .filter_map(|m| m.metadata.name)
        .collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"]);
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    api.create(&PostParams::default(), &config_map("a", "k", "1"))
        .await
        .unwrap();
    let data = |map: ConfigMap| serde_json::to_value(map.data).unwrap();
    let params = PatchParams::default();

    let merge = Patch::Merge(json!({"data": {"m": "1"}}));
    let merged = api.patch("a", &params, &merge).await.unwrap();
    assert_eq!(data(merged), json!({"k": "1", "m": "1"}));
    let strategic = Patch::Strategic(json!({"data": {"m": null, "s": "1"}}));
    let merged = api.patch("a", &params, &strategic).await.unwrap();
    assert_eq!(data(merged), json!({"k": "1", "s": "1"}));
    let patch: json_patch::Patch =
        serde_json::from_value(json!([{"op": "remove", "path": "/data/s"}])).unwrap();
    let patched = api
        .patch("a", &params, &Patch::<ConfigMap>::Json(patch))
        .await
        .unwrap();
    assert_eq!(data(patched), json!({"k": "1"}));

    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "2"}});
    let mine = PatchParams::apply("mine");
    let Err(kube::Error::Api(status)) = api.patch("a", &mine, &Patch::Apply(&config)).await else {
        panic!("took a field without force");
    };
    assert_eq!(status.code, 409);
    let forced = api
        .patch("a", &mine.force(), &Patch::Apply(&config))
        .await
        .unwrap();
    assert_eq!(data(forced.clone()), json!({"k": "2"}));
    let managers = forced.metadata.managed_fields.unwrap();
    assert!(
        managers
            .iter()
            .any(|m| m.manager.as_deref() == Some("mine"))
    );
}

#[tokio::test]
async fn a_watch_follows_a_selection() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    let params = WatchParams::default().labels("on=yes");
    let from = api.list(&ListParams::default()).await.unwrap();
    let version = from.metadata.resource_version.unwrap();
    let mut events = api.watch(&params, &version).await.unwrap().boxed();
    let mut map = config_map("a", "k", "1");
    map.metadata.labels = Some([("on".to_owned(), "yes".to_owned())].into());
    api.create(&PostParams::default(), &map).await.unwrap();
    for label in ["no", "yes"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"on": label}}}));
        api.patch("a", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(_) => seen.push("ADDED"),
            WatchEvent::Deleted(_) => seen.push("DELETED"),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, ["ADDED", "DELETED", "ADDED", "DELETED"]);
}

/// One event at a time: what is told of it to some must not be told to others to whom it is
/// something else, or who see the object as another kind.
#[tokio::test]
async fn watches_of_one_event_each_see_what_is_theirs() {
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let from = maps.list(&ListParams::default()).await.unwrap();
    let version = from.metadata.resource_version.unwrap();
    let every = WatchParams::default();
    let all = || maps.watch(&every, &version);
    let (first, second) = (all().await.unwrap(), all().await.unwrap());
    let some = WatchParams::default().labels("on=yes");
    let selected = maps.watch(&some, &version).await.unwrap();
    let metadata = maps.watch_metadata(&every, &version);
    let mut metadata = metadata.await.unwrap().boxed();
    let mut watches = [first.boxed(), second.boxed(), selected.boxed()];
    let map = config_map("a", "k", "1");
    maps.create(&PostParams::default(), &map).await.unwrap();
    for watch in &mut watches[..2] {
        let event = watch.try_next().await.unwrap().unwrap();
        assert!(matches!(event, WatchEvent::Added(_)), "{event:?}");
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": {"on": "yes"}}}));
    maps.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let mut seen = Vec::new();
    for watch in &mut watches {
        seen.push(match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            other => panic!("unexpected {other:?}"),
        });
    }
    assert_eq!(seen, ["MODIFIED", "MODIFIED", "ADDED"]);
    for expected in [false, true] {
        let object = match metadata.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => object,
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(object.metadata.labels.is_some(), expected);
    }
}

#[tokio::test]
async fn an_event_is_told_as_each_of_its_kinds() {
    use k8s_openapi::api::{core::v1::Event as Core, events::v1::Event};
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    let core: Api<Core> = Api::namespaced(client.clone(), "default");
    let other: Api<Event> = Api::namespaced(client, "default");
    let from = core.list(&ListParams::default()).await.unwrap();
    let version = from.metadata.resource_version.unwrap();
    let params = WatchParams::default();
    let mut as_core = core.watch(&params, &version).await.unwrap().boxed();
    let mut as_other = other.watch(&params, &version).await.unwrap().boxed();
    let event = serde_json::from_value(json!({
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Tested", "message": "hello", "type": "Normal",
    }));
    core.create(&PostParams::default(), &event.unwrap())
        .await
        .unwrap();
    let Some(WatchEvent::Added(seen)) = as_core.try_next().await.unwrap() else {
        panic!("not told as core/v1");
    };
    assert_eq!(seen.message.as_deref(), Some("hello"));
    let Some(WatchEvent::Added(seen)) = as_other.try_next().await.unwrap() else {
        panic!("not told as events.k8s.io/v1");
    };
    assert_eq!(seen.note.as_deref(), Some("hello"));
}

#[tokio::test]
async fn a_watch_list_ends_with_its_bookmark() {
    let (server, _dir) = common::server().await;
    let api: Api<Namespace> = Api::all(common::admin(&server));
    let params = WatchParams::default().initial_events();
    let mut events = api.watch(&params, "0").await.unwrap().boxed();
    let mut names = Vec::new();
    loop {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(namespace) => names.extend(namespace.metadata.name),
            WatchEvent::Bookmark(mark) => {
                assert_eq!(
                    mark.metadata.annotations["k8s.io/initial-events-end"],
                    "true"
                );
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
}

#[tokio::test]
async fn a_pod_is_defaulted_bound_and_deleted_gracefully() {
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    account(&client, "default").await;
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let made = api
        .create(&PostParams::default(), &pod("web"))
        .await
        .unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.priority, Some(0));
    assert_eq!(spec.tolerations.unwrap().len(), 2);
    assert!(
        spec.volumes.unwrap()[0]
            .name
            .starts_with("kube-api-access-")
    );
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));

    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"},
    });
    let _: Value = api
        .create_subresource("binding", "web", &PostParams::default(), &binding)
        .await
        .unwrap();
    let on_node = ListParams::default().fields("spec.nodeName=n1");
    assert_eq!(api.list(&on_node).await.unwrap().items.len(), 1);

    let deleted = api.delete("web", &DeleteParams::default()).await.unwrap();
    let marked = deleted.left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    api.delete("web", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(api.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn status_is_written_apart() {
    let (server, _dir) = common::server().await;
    let api: Api<Node> = Api::all(common::admin(&server));
    let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    api.create(&PostParams::default(), &node).await.unwrap();
    let status = Patch::Merge(
        json!({"status": {"nodeInfo": {"architecture": "x"}}, "spec": {"podCIDR": "10.0.0.0/24"}}),
    );
    let patched = api
        .patch_status("n1", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(patched.status.unwrap().node_info.unwrap().architecture, "x");
    assert_eq!(patched.spec.unwrap().pod_cidr, None);
}

#[tokio::test]
async fn a_finalizer_holds_until_it_goes() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    let mut map = config_map("a", "k", "1");
    map.metadata.finalizers = Some(vec!["a.b/c".into()]);
    api.create(&PostParams::default(), &map).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(
        api.get("a")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let (server, _dir) = common::server().await;
    let api: Api<ConfigMap> = Api::namespaced(common::admin(&server), "default");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let made = api.create(&dry, &config_map("a", "k", "1")).await.unwrap();
    assert!(made.metadata.uid.is_some());
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn the_api_has_a_service() {
    let (server, _dir) = common::server().await;
    let api: Api<Service> = Api::namespaced(common::admin(&server), "default");
    let spec = api.get("kubernetes").await.unwrap().spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.1"));
}
