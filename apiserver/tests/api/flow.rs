//! Flow control as clients see it.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{admin, listening_with, server};
use crate::wire::connect;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// How long something may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn objects(client: &kube::Client, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    Api::all_with(client.clone(), &resource)
}

async fn create(client: &kube::Client, group: &str, kind: &str, object: Value) {
    let object = serde_json::from_value(object).unwrap();
    let api = objects(client, group, kind);
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A level of one seat at which nobody waits, for what ann does.
async fn strict(client: &kube::Client) {
    let level = json!({
        "metadata": {"name": "strict"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        }},
    });
    create(client, GROUP, "PriorityLevelConfiguration", level).await;
    let schema = json!({
        "metadata": {"name": "of-ann"},
        "spec": {
            "priorityLevelConfiguration": {"name": "strict"},
            "matchingPrecedence": 50,
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "someone"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "namespaces": ["*"], "clusterScope": true}],
            }],
        },
    });
    create(client, GROUP, "FlowSchema", schema).await;
    let binding = json!({
        "metadata": {"name": "someone"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "someone"}],
    });
    let group = "rbac.authorization.k8s.io";
    create(client, group, "ClusterRoleBinding", binding).await;
}

async fn until(client: &kube::Client, wanted: StatusCode) -> Response<Body> {
    let asking = async {
        loop {
            let path = "/api/v1/namespaces/default/configmaps";
            let response = client.send(get(path)).await.unwrap();
            if response.status() == wanted {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_without_seats_turns_away_and_others_are_not_held_up() {
    let to = listening_with(|config| config.max_requests = 20).await;
    let server = &to.server;
    let root = admin(server);
    strict(&root).await;
    let ann = server.client("someone", &[]);
    let served = until(&ann, StatusCode::OK).await;
    let schemas = objects(&root, GROUP, "FlowSchema");
    let uid = schemas.get("of-ann").await.unwrap().metadata.uid.unwrap();
    assert_eq!(served.headers()["x-kubernetes-pf-flowschema-uid"], *uid);
    assert!(
        served
            .headers()
            .contains_key("x-kubernetes-pf-prioritylevel-uid")
    );
    drop(served);

    // A body that does not end holds the only seat, once nobody else does.
    let (slow, refused) = loop {
        let mut slow = connect(&to, "team").await;
        let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\n\
            Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        slow.write_all(head.as_bytes()).await.unwrap();
        let turned_away = tokio::select! {
            refused = until(&ann, StatusCode::TOO_MANY_REQUESTS) => Some(refused),
            _ = slow.read_u8() => None,
        };
        if let Some(refused) = turned_away {
            break (slow, refused);
        }
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["x-kubernetes-pf-flowschema-uid"], *uid);
    let bob = server.client("bob", &["system:masters"]);
    until(&bob, StatusCode::OK).await;

    // Who goes away gives the seat back.
    drop(slow);
    until(&ann, StatusCode::OK).await;

    let metrics = root.request_text(Request::get("/metrics").body(Vec::new()).unwrap());
    let metrics = metrics.await.unwrap();
    let rejected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"of-ann\",priority_level=\"strict\",reason=\"concurrency-limit\"}";
    assert!(metrics.contains(rejected), "{metrics}");
    assert!(
        metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"strict\"} 1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_objects_are_kept_and_dangling_schemas_say_so() {
    let (server, _dir) = server().await;
    let root = admin(&server);
    let schemas = objects(&root, GROUP, "FlowSchema");
    let levels = objects(&root, GROUP, "PriorityLevelConfiguration");
    assert_eq!(
        schemas.list(&Default::default()).await.unwrap().items.len(),
        13
    );
    assert_eq!(
        levels.list(&Default::default()).await.unwrap().items.len(),
        8
    );
    let change = json!({"spec": {"limited": {"nominalConcurrencyShares": 99}}});
    let patch = Patch::Merge(&change);
    levels
        .patch("catch-all", &PatchParams::default(), &patch)
        .await
        .unwrap();
    schemas.delete("probes", &Default::default()).await.unwrap();
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    levels
        .patch("system", &PatchParams::default(), &Patch::Merge(&own))
        .await
        .unwrap();
    levels
        .patch("system", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let lost = json!({
        "metadata": {"name": "lost"},
        "spec": {"priorityLevelConfiguration": {"name": "none"}, "matchingPrecedence": 77,
            "rules": []},
    });
    create(&root, GROUP, "FlowSchema", lost).await;
    let settling = async {
        loop {
            let shares = |level: &DynamicObject| {
                level.data["spec"]["limited"]["nominalConcurrencyShares"].as_i64()
            };
            let catch_all = levels.get("catch-all").await.unwrap();
            let system = levels.get("system").await.unwrap();
            let probes = schemas.get_opt("probes").await.unwrap();
            let lost = schemas.get("lost").await.unwrap();
            let dangles = lost.data["status"]["conditions"][0]["status"] == "True";
            if shares(&catch_all) == Some(5) && probes.is_some() && dangles {
                assert_eq!(shares(&system), Some(99));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, settling).await.unwrap();
}
