//! What a node may: read what its own pods use, write what is its own.

use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use peapod_api::net::BgpPeer;
use peapod_apiserver::ApiServer;
use serde_json::{Value, json};

use crate::authz::{create, of, refused};
use crate::common::{self, admin};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};

fn node(server: &ApiServer, name: &str) -> kube::Client {
    server.client(&format!("system:node:{name}"), &["system:nodes"])
}

/// Nodes n1 and n2; on n1 a pod that uses the secret `used` and the account `default`.
async fn world(server: &ApiServer) {
    let admin = admin(server);
    for name in ["n1", "n2"] {
        let nodes: Api<Node> = Api::all(node(server, name));
        create(nodes, json!({"metadata": {"name": name}})).await;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    create(accounts, json!({"metadata": {"name": "default"}})).await;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    for name in ["used", "other"] {
        create(secrets.clone(), json!({"metadata": {"name": name}})).await;
    }
    let pods: Api<Pod> = Api::namespaced(admin, "default");
    create(pods, pod("p", "n1")).await;
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "secret": {"secretName": "used"}}],
        },
    })
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use() {
    let (server, _dir) = common::server().await;
    world(&server).await;
    let secrets = |name| -> Api<Secret> { Api::namespaced(node(&server, name), "default") };
    secrets("n1").get("used").await.unwrap();
    let one = ListParams::default().fields("metadata.name=used");
    assert_eq!(secrets("n1").list(&one).await.unwrap().items.len(), 1);
    let told = refused(secrets("n1").get("other").await);
    assert_eq!(
        told.message,
        "secrets \"other\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" \
         in the namespace \"default\": no relationship found between node 'n1' and this object"
    );
    assert_eq!(refused(secrets("n2").get("used").await).code, 403);
    assert_eq!(
        refused(secrets("n1").list(&ListParams::default()).await).code,
        403
    );
    let maps: Api<ConfigMap> = Api::namespaced(node(&server, "n1"), "default");
    assert_eq!(
        refused(maps.get("kube-root-ca.crt").await).code,
        404,
        "the pod's token volume has it"
    );
    // As soon as a pod uses it.
    let pods: Api<Pod> = Api::namespaced(admin(&server), "default");
    create(pods.clone(), pod("q", "n2")).await;
    secrets("n2").get("used").await.unwrap();
    let now = kube::api::DeleteParams {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    pods.delete("q", &now).await.unwrap();
    assert_eq!(refused(secrets("n2").get("used").await).code, 403);
}

#[tokio::test]
async fn a_node_lists_its_own_pods_only() {
    let (server, _dir) = common::server().await;
    world(&server).await;
    let pods: Api<Pod> = Api::all(node(&server, "n1"));
    let of_node = |name: &str| ListParams::default().fields(&format!("spec.nodeName={name}"));
    assert_eq!(pods.list(&of_node("n1")).await.unwrap().items.len(), 1);
    assert_eq!(refused(pods.list(&of_node("n2")).await).code, 403);
    assert_eq!(refused(pods.list(&ListParams::default()).await).code, 403);
}

#[tokio::test]
async fn a_node_writes_what_is_its_own() {
    let (server, _dir) = common::server().await;
    world(&server).await;
    let [n1, n2] = ["n1", "n2"].map(|name| node(&server, name));
    let merge = |value: Value| Patch::Merge(value);
    let params = PatchParams::default();
    let nodes: Api<Node> = Api::all(n1.clone());
    let label = |key: &str| merge(json!({"metadata": {"labels": {key: "x"}}}));
    nodes
        .patch("n1", &params, &label("example.com/a"))
        .await
        .unwrap();
    nodes
        .patch("n1", &params, &label("node.kubernetes.io/a"))
        .await
        .unwrap();
    let told = refused(
        nodes
            .patch("n1", &params, &label("node-role.kubernetes.io/a"))
            .await,
    );
    assert_eq!(
        told.message,
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify the following labels: node-role.kubernetes.io/a"
    );
    let taint = merge(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}));
    assert!(
        refused(nodes.patch("n1", &params, &taint).await)
            .message
            .ends_with("is not allowed to modify taints")
    );
    let told = refused(nodes.patch("n2", &params, &label("example.com/a")).await);
    assert!(
        told.message
            .ends_with("node \"n1\" is not allowed to modify node \"n2\""),
        "{told:?}"
    );
    let status = merge(json!({"status": {"phase": "Running"}}));
    let pods = |client: &kube::Client| -> Api<Pod> { Api::namespaced(client.clone(), "default") };
    pods(&n1).patch_status("p", &params, &status).await.unwrap();
    assert_eq!(
        refused(pods(&n2).patch_status("p", &params, &status).await).code,
        403
    );
    assert_eq!(
        refused(pods(&n2).delete("p", &Default::default()).await).code,
        403
    );
    let plain = pods(&n1)
        .create(&PostParams::default(), &of(pod("made", "n1")))
        .await;
    assert!(
        refused(plain)
            .message
            .contains("can only create mirror pods")
    );
    let leases: Api<Lease> = Api::namespaced(n1, "kube-node-lease");
    create(leases.clone(), json!({"metadata": {"name": "n1"}})).await;
    let other = leases
        .create(
            &PostParams::default(),
            &of(json!({"metadata": {"name": "n2"}})),
        )
        .await;
    assert_eq!(refused(other).code, 403);
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_own_pods() {
    let (server, _dir) = common::server().await;
    world(&server).await;
    let pods: Api<Pod> = Api::namespaced(admin(&server), "default");
    let uid = pods.get("p").await.unwrap().metadata.uid;
    let ask_for = async |name: &str, bound: Value, audiences: Value| {
        let accounts: Api<ServiceAccount> = Api::namespaced(node(&server, name), "default");
        let spec = json!({"audiences": audiences, "boundObjectRef": bound});
        let request: TokenRequest = of(json!({"spec": spec}));
        let params = PostParams::default();
        accounts
            .create_token_request("default", &params, &request)
            .await
    };
    let ask = async |name: &str, bound: Value| ask_for(name, bound, json!([])).await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
    ask("n1", bound.clone()).await.unwrap();
    let told = refused(ask_for("n1", bound.clone(), json!(["vault"])).await);
    assert!(
        told.message
            .ends_with("audience \"vault\" not found in pod spec volume"),
        "{told:?}"
    );
    assert_eq!(refused(ask("n2", bound).await).code, 403);
    let told = refused(ask("n1", Value::Null).await);
    assert!(
        told.message
            .ends_with("node requested token not bound to a pod"),
        "{told:?}"
    );
}

/// Passwords of BGP sessions: a node reads those of the peers that select it, and no others.
#[tokio::test]
async fn a_node_reads_the_passwords_of_its_peers() {
    let (server, _dir) = common::server().await;
    world(&server).await;
    let nodes: Api<Node> = Api::all(admin(&server));
    let label = Patch::Merge(json!({"metadata": {"labels": {"side": "a"}}}));
    let params = PatchParams::default();
    nodes.patch("n1", &params, &label).await.unwrap();
    let system: Api<Secret> = Api::namespaced(admin(&server), "kube-system");
    let elsewhere: Api<Secret> = Api::namespaced(admin(&server), "default");
    for secrets in [system.clone(), elsewhere] {
        create(secrets, json!({"metadata": {"name": "bgp"}})).await;
    }
    create(system, json!({"metadata": {"name": "unnamed"}})).await;
    let may = async |node_name: &str, namespace: &str, secret: &str| {
        let secrets: Api<Secret> = Api::namespaced(node(&server, node_name), namespace);
        secrets.get(secret).await.is_ok()
    };
    assert!(!may("n1", "kube-system", "bgp").await, "nobody names it");
    let peers: Api<BgpPeer> = Api::all(admin(&server));
    let peer = json!({"metadata": {"name": "leaf"}, "spec": {"interface": "eth1",
        "remoteAs": "external", "nodeSelector": {"matchLabels": {"side": "a"}},
        "auth": {"secretRef": {"name": "bgp"}}}});
    create(peers.clone(), peer).await;
    assert!(may("n1", "kube-system", "bgp").await);
    assert!(!may("n2", "kube-system", "bgp").await, "it is not selected");
    assert!(!may("n1", "kube-system", "unnamed").await);
    assert!(!may("n1", "default", "bgp").await, "another namespace");
    // By name only.
    let secrets: Api<Secret> = Api::namespaced(node(&server, "n1"), "kube-system");
    assert_eq!(
        refused(secrets.list(&ListParams::default()).await).code,
        403
    );
    let one = ListParams::default().fields("metadata.name=bgp");
    assert_eq!(secrets.list(&one).await.unwrap().items.len(), 1);
    let all = Patch::Merge(json!({"spec": {"nodeSelector": null}}));
    peers.patch("leaf", &params, &all).await.unwrap();
    assert!(may("n2", "kube-system", "bgp").await, "all are selected");
    let none = Patch::Merge(json!({"spec": {"auth": null}}));
    peers.patch("leaf", &params, &none).await.unwrap();
    assert!(
        !may("n1", "kube-system", "bgp").await,
        "as soon as it is not"
    );
}
