//! Events end by themselves, and are found by what they are about in both of their views.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::events::v1::Event as GroupEvent;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::common::{admin, server, server_with};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_event_ends_by_itself() {
    let ttl = Duration::from_secs(1);
    let (server, _dir) = server_with(|config| config.event_ttl = ttl).await;
    let events: Api<Event> = Api::namespaced(admin(&server), "default");
    let event = |name: &str| -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "Tested",
        }))
        .unwrap()
    };
    let begin = events.list(&ListParams::default()).await.unwrap();
    let from = begin.metadata.resource_version.unwrap();
    let params = PostParams::default();
    let mut again = events.create(&params, &event("again")).await.unwrap();
    events.create(&params, &event("once")).await.unwrap();
    again.message = Some("once more".to_owned());
    events.replace("again", &params, &again).await.unwrap();

    let mut watch = Box::pin(events.watch(&WatchParams::default(), &from).await.unwrap());
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let next = tokio::time::timeout(LIMIT, watch.try_next()).await;
        if let Some(WatchEvent::Deleted(event)) = next.unwrap().unwrap() {
            ended.push(event.metadata.name.unwrap());
        }
    }
    ended.sort();
    assert_eq!(ended, ["again", "once"]);
}

#[tokio::test]
async fn both_views_are_selected_by_fields() {
    let (server, _dir) = server().await;
    let core: Api<Event> = Api::namespaced(admin(&server), "default");
    let group: Api<GroupEvent> = Api::namespaced(admin(&server), "default");
    let old: Event = serde_json::from_value(json!({
        "metadata": {"name": "old", "namespace": "default"}, "type": "Warning",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "source": {"component": "kubelet"}, "reason": "Tested",
    }))
    .unwrap();
    core.create(&PostParams::default(), &old).await.unwrap();
    let new: GroupEvent = serde_json::from_value(json!({
        "metadata": {"name": "new", "namespace": "default"}, "type": "Normal",
        "regarding": {"kind": "Node", "namespace": "default", "name": "n"},
        "eventTime": "2017-09-19T13:49:16.000000Z", "action": "Do", "reason": "Tested",
        "reportingController": "tester", "reportingInstance": "t-1",
    }))
    .unwrap();
    group.create(&PostParams::default(), &new).await.unwrap();
    for (fields, expected) in [
        ("source=kubelet", "old"),
        ("source=tester", "new"),
        ("reportingComponent=tester", "new"),
        ("involvedObject.kind=Pod", "old"),
        ("type=Normal", "new"),
    ] {
        let found = core.list(&ListParams::default().fields(fields)).await;
        let found = found.unwrap().items.into_iter().map(|e| e.metadata.name);
        let found: Vec<String> = found.flatten().collect();
        assert_eq!(found, [expected], "{fields}");
    }
    for (fields, expected) in [
        ("reportingController=tester", "new"),
        ("regarding.kind=Pod", "old"),
        ("regarding.name=n", "new"),
        ("type=Warning", "old"),
    ] {
        let found = group.list(&ListParams::default().fields(fields)).await;
        let found = found.unwrap().items.into_iter().map(|e| e.metadata.name);
        let found: Vec<String> = found.flatten().collect();
        assert_eq!(found, [expected], "{fields}");
    }
    let refused = group.list(&ListParams::default().fields("source=x")).await;
    assert!(refused.is_err(), "{refused:?}");
}
