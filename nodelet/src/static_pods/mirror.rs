//! The API's copy of a static pod: made, made anew when it is another's, given its status, removed.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use peapod_api::k8s_openapi;

use super::manifest;

fn pods(client: &Client, pod: &Pod) -> Api<Pod> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Api::namespaced(client.clone(), namespace)
}

/// Sees to it that the API has the copy of this static pod; gives the copy.
pub async fn ensure(client: &Client, pod: &Pod) -> Result<Pod, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api = pods(client, pod);
    if let Some(found) = api.get_opt(name).await? {
        if manifest::mirrored(&found) == pod.metadata.uid.as_deref() {
            return Ok(found);
        }
        remove(client, &found).await?;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = node.unwrap_or_default();
    let nodes: Api<Node> = Api::all(client.clone());
    let uid = nodes.get(node).await?.metadata.uid.unwrap_or_default();
    api.create(&PostParams::default(), &manifest::mirror(pod, node, &uid))
        .await
}

/// Removes a copy at once, as long as it is the one that was seen.
pub async fn remove(client: &Client, copy: &Pod) -> Result<(), kube::Error> {
    let name = copy.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: copy.metadata.uid.clone().map(|uid| Preconditions {
            uid: Some(uid),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    match pods(client, copy).delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the copy of a static pod that has ended.
pub async fn forget(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match pods(client, pod).get_opt(name).await? {
        Some(copy) if manifest::mirrored(&copy) == pod.metadata.uid.as_deref() => {
            remove(client, &copy).await
        }
        _ => Ok(()),
    }
}
