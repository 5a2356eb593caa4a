//! What the API is told of a pod: its status as one patch, and its removal.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use serde_json::{Map, Value, json};

use crate::core::is_own_condition;
use crate::static_pods::{manifest, mirror};

/// Fields that must be taken away explicitly when they are no longer set.
const VANISHING: [&str; 6] = [
    "reason",
    "message",
    "podIP",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];

/// The strategic merge patch that turns the status last written into this one. Conditions of
/// others are not in it, so that they cannot be lost.
pub fn patch(uid: &str, old: Option<&PodStatus>, new: &PodStatus) -> Value {
    let own = new.conditions.iter().flatten().filter(|condition| {
        let known = old
            .and_then(|old| old.conditions.as_ref())
            .is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|other| other.type_ == condition.type_)
            });
        is_own_condition(&condition.type_) || !known
    });
    let mut conditions: Vec<Value> = own.map(condition).collect();
    // Of ours some are there only while they hold.
    let over = old
        .and_then(|old| old.conditions.as_ref())
        .into_iter()
        .flatten();
    let over = over.filter(|before| {
        let kind = &before.type_;
        let mut now = new.conditions.iter().flatten();
        is_own_condition(kind) && now.all(|condition| &condition.type_ != kind)
    });
    conditions.extend(over.map(|before| json!({"$patch": "delete", "type": before.type_})));
    let rest = PodStatus {
        conditions: None,
        ..new.clone()
    };
    let mut status = match serde_json::to_value(&rest) {
        Ok(Value::Object(status)) => status,
        _ => Map::new(),
    };
    for field in VANISHING {
        status.entry(field).or_insert(Value::Null);
    }
    // The server's own, and merged by key: replaced as a whole.
    status.remove("qosClass");
    replace(&mut status, "podIPs");
    replace(&mut status, "hostIPs");
    status.insert("conditions".to_owned(), Value::Array(conditions));
    json!({"metadata": {"uid": uid}, "status": status})
}

fn replace(status: &mut Map<String, Value>, list: &str) {
    if let Some(Value::Array(items)) = status.get_mut(list) {
        items.insert(0, json!({"$patch": "replace"}));
    }
}

fn condition(condition: &PodCondition) -> Value {
    let mut value = serde_json::to_value(condition).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for field in ["reason", "message"] {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    value
}

/// How a report ended.
#[derive(Debug)]
pub enum Reported {
    /// The API has it.
    Done,
    /// The API has the pod no longer, or another one of its name.
    PodGone,
    /// Try again.
    Failed(kube::Error),
}

fn reported<T>(result: Result<T, kube::Error>) -> Reported {
    match result {
        Ok(_) => Reported::Done,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Reported::PodGone,
        Err(error) => Reported::Failed(error),
    }
}

fn pods(client: &Client, pod: &Pod) -> Api<Pod> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Api::namespaced(client.clone(), namespace)
}

/// Writes a pod's status; of a static pod, that of the API's copy, which is made when it is missing.
pub async fn status(
    client: &Client,
    pod: &Pod,
    old: Option<&PodStatus>,
    new: &PodStatus,
) -> Reported {
    let copy;
    let pod = match manifest::is_static(pod) {
        true => match mirror::ensure(client, pod).await {
            Ok(made) => {
                copy = made;
                &copy
            }
            Err(error) => return Reported::Failed(error),
        },
        false => pod,
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let patch = Patch::Strategic(patch(uid, old, new));
    // Without a resourceVersion it conflicts only when the UID is another one.
    reported(
        pods(client, pod)
            .patch_status(name, &PatchParams::default(), &patch)
            .await,
    )
}

/// Removes a pod of which nothing is left on the node.
pub async fn delete(client: &Client, pod: &Pod) -> Reported {
    if manifest::is_static(pod) {
        return reported(mirror::forget(client, pod).await);
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    reported(pods(client, pod).delete(name, &params).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours() {
        let status = |value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let new = status(json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "qosClass": "Burstable",
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "example.com/open", "status": "True"},
                {"type": "PodScheduled", "status": "True"}],
        }));
        let old = status(json!({"conditions": [
            {"type": "example.com/open", "status": "False"}]}));
        assert_eq!(
            patch("u", Some(&old), &new),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.1"}],
                "reason": null, "message": null, "containerStatuses": null,
                "initContainerStatuses": null, "ephemeralContainerStatuses": null,
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": null, "message": null},
                    {"type": "PodScheduled", "status": "True", "reason": null, "message": null}],
            }})
        );
    }
}
