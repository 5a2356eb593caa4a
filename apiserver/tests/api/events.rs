//! Events end by themselves.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::common::{admin, server_with};

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
