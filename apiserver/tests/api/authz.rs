//! Who may do what: roles, bindings and their defaults, through the API.

use kube::api::{Api, ListParams, PostParams};
use kube::core::Status;
use peapod_apiserver::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::common::{self, Listening, admin};
use crate::kubectl::kubectl;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

pub fn of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub fn refused<T: std::fmt::Debug>(outcome: kube::Result<T>) -> Box<Status> {
    match outcome {
        Err(kube::Error::Api(status)) => status,
        other => panic!("expected a refusal: {other:?}"),
    }
}

pub async fn create<K>(api: Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), &of(object))
        .await
        .unwrap();
}

/// Grants rules in `default` to a user.
async fn grant(server: &ApiServer, user: &str, rules: Value) {
    let roles: Api<Role> = Api::namespaced(admin(server), "default");
    create(roles, json!({"metadata": {"name": user}, "rules": rules})).await;
    let bindings: Api<RoleBinding> = Api::namespaced(admin(server), "default");
    let binding = json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user}],
    });
    create(bindings, binding).await;
}

#[tokio::test]
async fn a_grant_holds_as_soon_as_it_is_acknowledged() {
    let (server, _dir) = common::server().await;
    let alice = server.client("alice", &[]);
    let pods: Api<Pod> = Api::namespaced(alice.clone(), "default");
    let told = refused(pods.list(&ListParams::default()).await);
    assert_eq!(told.code, 403);
    assert_eq!(
        told.message,
        r#"pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let told = refused(pods.get("x").await);
    assert!(
        told.message
            .starts_with(r#"pods "x" is forbidden: User "alice" cannot get"#)
    );
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&server, "alice", rules).await;
    pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(refused(pods.logs("x", &Default::default()).await).code, 403);
    let elsewhere: Api<Pod> = Api::namespaced(alice.clone(), "kube-system");
    assert_eq!(
        refused(elsewhere.list(&ListParams::default()).await).code,
        403
    );
    let bindings: Api<RoleBinding> = Api::namespaced(admin(&server), "default");
    bindings.delete("alice", &Default::default()).await.unwrap();
    assert_eq!(refused(pods.list(&ListParams::default()).await).code, 403);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let (server, _dir) = common::server().await;
    let rules = json!([
        {"verbs": ["create", "update", "get"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    grant(&server, "bob", rules).await;
    let bob = server.client("bob", &["team"]);
    let roles: Api<Role> = Api::namespaced(bob.clone(), "default");
    let role = |name: &str, verbs: &[&str]| -> Role {
        of(
            json!({"metadata": {"name": name}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]}),
        )
    };
    let post = PostParams::default();
    roles.create(&post, &role("same", &["get"])).await.unwrap();
    let told = refused(roles.create(&post, &role("more", &["get", "delete"])).await);
    assert_eq!(
        told.message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" (groups=[\"team\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    let bindings: Api<RoleBinding> = Api::namespaced(bob, "default");
    let binding = |kind: &str, name: &str| -> RoleBinding {
        of(json!({
            "metadata": {"name": format!("to-{}", name.replace(':', "-"))},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "User", "name": "carol"}],
        }))
    };
    bindings
        .create(&post, &binding("Role", "same"))
        .await
        .unwrap();
    let told = refused(
        bindings
            .create(&post, &binding("ClusterRole", "cluster-admin"))
            .await,
    );
    assert!(
        told.message
            .contains("is attempting to grant RBAC permissions"),
        "{told:?}"
    );
    let told = refused(bindings.create(&post, &binding("Role", "nothing")).await);
    assert_eq!(told.code, 404);
    let carol: Api<Pod> = Api::namespaced(server.client("carol", &[]), "default");
    assert_eq!(refused(carol.get("none").await).code, 404);
}

#[tokio::test]
async fn the_default_roles_are_there_and_are_put_right() {
    let (server, dir) = common::server().await;
    let roles: Api<ClusterRole> = Api::all(admin(&server));
    let view = roles.get("system:aggregate-to-view").await.unwrap();
    let labels = view.metadata.labels.unwrap();
    assert_eq!(labels["kubernetes.io/bootstrapping"], "rbac-defaults");
    assert_eq!(
        labels["rbac.authorization.k8s.io/aggregate-to-view"],
        "true"
    );
    let bindings: Api<ClusterRoleBinding> = Api::all(admin(&server));
    let discovery = bindings.get("system:discovery").await.unwrap();
    assert_eq!(discovery.subjects.unwrap()[0].name, "system:authenticated");
    drop(dir);
}

/// kubectl acts as others, asks what they may do, and is told as upstream tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_asks_who_may() {
    let to = common::listening().await;
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]}]);
    grant(&to.server, "dave", rules).await;
    let maps: Api<ConfigMap> = Api::namespaced(admin(&to.server), "default");
    create(maps, json!({"metadata": {"name": "a"}})).await;
    for (args, expected) in [
        ("auth can-i list pods", Ok("yes")),
        ("auth can-i get configmaps/a --as=dave", Ok("yes")),
        ("auth can-i get configmaps/b --as=dave", Err("no")),
        ("auth can-i get /healthz --as=dave", Ok("yes")),
        ("auth can-i get /metrics --as=dave", Err("no")),
        ("get configmap a --as=dave -o name", Ok("configmap/a")),
        (
            "get configmap b --as=dave",
            Err(
                r#"configmaps "b" is forbidden: User "dave" cannot get resource "configmaps" in API group "" in the namespace "default""#,
            ),
        ),
        (
            "auth whoami --as=dave --as-group=g -o jsonpath={.status.userInfo}",
            Ok(r#"{"groups":["g","system:authenticated"],"username":"dave"}"#),
        ),
    ] {
        expect(&to, args, expected).await;
    }
    let list = kubectl(&to, "auth can-i --list --as=dave", "")
        .await
        .unwrap();
    assert!(
        list.contains("configmaps") && list.contains("[get list]"),
        "{list}"
    );
    to.stop.cancel();
}

async fn expect(to: &Listening, args: &str, expected: Result<&str, &str>) {
    let told = kubectl(to, args, "").await;
    let fits = match (&told, expected) {
        (Ok(told), Ok(expected)) | (Err(told), Err(expected)) => told.contains(expected),
        _ => false,
    };
    assert!(fits, "kubectl {args}: {told:?}, expected {expected:?}");
}

/// Only who may impersonate someone acts as that one.
#[tokio::test]
async fn impersonation_takes_permission() {
    let to = common::listening().await;
    let rules =
        json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]}]);
    grant(&to.server, "erin", rules).await;
    let erin = to.server.client("erin", &[]);
    let ask = async |user: &str| {
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("Impersonate-User", user)
            .header("Content-Type", "application/json")
            .body(b"{}".to_vec())
            .unwrap();
        erin.request::<Value>(request).await
    };
    let me = ask("system:serviceaccount:default:robot").await.unwrap();
    assert_eq!(
        me["status"]["userInfo"]["username"],
        "system:serviceaccount:default:robot"
    );
    let told = refused(ask("root").await);
    assert_eq!(
        told.message,
        r#"users "root" is forbidden: User "erin" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    to.stop.cancel();
}
