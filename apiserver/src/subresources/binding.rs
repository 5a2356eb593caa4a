//! `/binding` of a pod: the scheduler's verdict, which gives the pod its node.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admission::topology_labels;
use crate::api::Api;
use crate::registry::{Resource, Subresource, object_meta, value};
use crate::rest::call::{Call, Reply};
use crate::rest::{options, respond, update, write::Write};
use crate::status::{Result, Status};

/// Answers a POST of a Binding below its pod.
pub async fn create(api: &Api, call: &Call) -> Result<Reply> {
    let binding = super::body(api, call)?;
    bind(api, call, &call.resource, &call.target.name, binding).await
}

/// Answers a POST of a Binding that has its pod's name.
pub async fn create_in_collection(api: &Api, call: &Call) -> Result<Reply> {
    let binding = super::body_of(api, call, &Subresource::Binding)?;
    let pods = api.registry.find("", "v1", "pods");
    let pods = pods.ok_or_else(Status::no_such_path)?;
    let name = value::text(&binding, "metadata.name").to_owned();
    bind(api, call, &pods, &name, binding).await
}

async fn bind(
    api: &Api,
    call: &Call,
    pods: &Resource,
    name: &str,
    binding: Value,
) -> Result<Reply> {
    let options = options::of(call)?;
    let node = value::text(&binding, "target.name").to_owned();
    let kind = value::text(&binding, "target.kind");
    if node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(Status::bad_request(
            "Binding is invalid: target.name: Required value: the target must be a Node with a name",
        ));
    }
    let manager = crate::rest::fields::manager(&options, call);
    let write = Write {
        resource: pods,
        name,
        subresource: "binding",
        ..Write::asked(api, call, &options, &manager)
    };
    let given = value::text(&binding, "metadata.uid");
    update::assign(&write, |pod| {
        let mut new = bound(&write, pod, &binding, given, &node, api.now())?;
        topology_labels::label(api, &mut new, &node);
        Ok(new)
    })
    .await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::value(api, call, StatusCode::CREATED, done)
}

fn bound(
    write: &Write<'_>,
    pod: &Value,
    binding: &Value,
    uid: &str,
    node: &str,
    now: Timestamp,
) -> Result<Value> {
    let refuse = |why: String| {
        let resource = write.resource.kind.group_resource();
        Err(Status::conflict(resource, write.name, why))
    };
    let present = value::text(pod, "metadata.uid");
    if !uid.is_empty() && uid != present {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {present}"
        ));
    }
    if value::at(pod, "metadata.deletionTimestamp").is_some() {
        return refuse(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            write.name
        ));
    }
    match value::text(pod, "spec.nodeName") {
        "" => {}
        assigned => {
            return refuse(format!(
                "pod {} is already assigned to node {assigned:?}",
                write.name
            ));
        }
    }
    if !value::list(pod, "spec.schedulingGates").is_empty() {
        return refuse(format!(
            "pod {} has non-empty .spec.schedulingGates",
            write.name
        ));
    }
    let mut new = pod.clone();
    value::set(&mut new, "spec.nodeName", node);
    for field in ["annotations", "labels"] {
        for (key, text) in value::map(&binding["metadata"], field)
            .into_iter()
            .flatten()
        {
            let place = value::entry(&mut new, &format!("metadata.{field}"));
            place[key] = text.clone();
        }
    }
    set_scheduled(&mut new, now);
    Ok(new)
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": object_meta::time(now),
    });
    match value::entry(pod, "status.conditions") {
        Value::Array(list) => {
            list.retain(|one| one["type"] != "PodScheduled");
            list.push(condition);
        }
        other => *other = json!([condition]),
    }
}
