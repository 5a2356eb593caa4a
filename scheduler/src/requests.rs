//! The requests that the scheduler makes, as raw bodies: answers are not decoded, only their
//! status matters.

use std::time::Duration;

use http::{Method, Request};
use jiff::{Timestamp, Unit};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::core::queue::Pending;
use crate::error::Error;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How a patch is meant.
#[derive(Clone, Copy, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// Lists are merged by their keys.
    Strategic,
}

/// The namespace and the name in `namespace/name`.
pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// Creates an object at `path`.
pub async fn post(client: &Client, what: &str, path: &str, body: &Value) -> Result<(), Error> {
    send(client, what, Method::POST, path, "application/json", body).await
}

/// Patches the object at `path`.
pub async fn patch(
    client: &Client,
    what: &str,
    path: &str,
    kind: Patch,
    body: &Value,
) -> Result<(), Error> {
    let content = match kind {
        Patch::Merge => "application/merge-patch+json",
        Patch::Strategic => "application/strategic-merge-patch+json",
    };
    send(client, what, Method::PATCH, path, content, body).await
}

/// Binds a pod to a node. The uid keeps a namesake from being bound in its place.
pub async fn bind(client: &Client, pod: &Pending, node: &str) -> Result<(), Error> {
    let (namespace, name) = split(&pod.key);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": namespace, "name": name, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let what = format!("bind pod {} to {node}", pod.key);
    post(client, &what, &path, &body).await
}

/// Deletes a pod, if it is still the one with this uid, and says on it for whom.
pub async fn preempt(
    client: &Client,
    key: &str,
    uid: &str,
    preemptor: &Pending,
) -> Result<(), Error> {
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": message,
        "lastTransitionTime": now(),
    });
    patch_status(client, key, json!({"conditions": [condition]})).await?;
    let (namespace, name) = split(key);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let body = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid},
    });
    let what = format!("delete pod {key} in favour of {}", preemptor.key);
    send(
        client,
        &what,
        Method::DELETE,
        &path,
        "application/json",
        &body,
    )
    .await
}

/// The time as the API writes it.
pub fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

/// Patches a pod's status.
pub async fn patch_status(client: &Client, key: &str, status: Value) -> Result<(), Error> {
    let (namespace, name) = split(key);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
    let what = format!("write the status of pod {key}");
    let body = json!({"status": status});
    patch(client, &what, &path, Patch::Strategic, &body).await
}

async fn send(
    client: &Client,
    what: &str,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> Result<(), Error> {
    let unreachable = |source: kube::Error| Error::Unreachable {
        what: what.to_owned(),
        source: Box::new(source),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(Body::from(body.to_string().into_bytes()))
        .map_err(|fault| unreachable(kube::Error::HttpError(fault)))?;
    let answer = tokio::time::timeout(TIMEOUT, client.send(request));
    let answer = answer.await.map_err(|_| Error::TimedOut {
        what: what.to_owned(),
        seconds: TIMEOUT.as_secs(),
    })?;
    let answer = answer.map_err(unreachable)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.into_body().collect_bytes().await;
    let body = body.map_err(unreachable)?;
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = parsed.get("message").and_then(Value::as_str);
    Err(Error::Refused {
        what: what.to_owned(),
        status,
        message: message.unwrap_or("no message").to_owned(),
    })
}
