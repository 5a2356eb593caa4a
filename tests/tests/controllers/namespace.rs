//! What a namespace begins with, and that all of it goes with it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::frame::{Cluster, count, create, deployment, eventually};

#[tokio::test]
async fn a_namespace_is_furnished_and_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    let namespaces = cluster.cluster::<Namespace>();
    create(&namespaces, json!({"metadata": {"name": "team"}})).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    eventually("its account and root CA", || async {
        let account = accounts.get_opt("default").await.unwrap();
        let bundle = maps.get_opt("kube-root-ca.crt").await.unwrap();
        let bundle = bundle.and_then(|bundle| bundle.data);
        account.is_some() && bundle.is_some_and(|data| data["ca.crt"] == "a root")
    })
    .await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    eventually("a deleted account to come back", || async {
        accounts.get_opt("default").await.unwrap().is_some()
    })
    .await;

    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "team");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    create(&deployments, deployment("v1", 2)).await;
    eventually("two pods", || async { count(&pods).await == 2 }).await;
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the namespace to go", || async {
        namespaces.get_opt("team").await.unwrap().is_none()
    })
    .await;
    assert_eq!(
        count(&pods).await + count(&deployments).await + count(&maps).await,
        0
    );
}
