//! Defaults of a pod's specification that depend on its other fields; those that do not stand
//! in the schema's tables.

use serde_json::{Map as JsonMap, Value, json};

use super::whole;
use crate::registry::value;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills a specification, of a Pod or of a template.
pub fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let host_network = value::truth(spec, "hostNetwork");
    for field in CONTAINERS {
        for container in items(spec, field) {
            default_pull_policy(container);
            if host_network && field != "ephemeralContainers" {
                items(container, "ports").for_each(default_host_port);
            }
        }
    }
    items(spec, "volumes").for_each(default_volume);
    default_service_account(spec);
}

/// Fills what only a Pod has, not a template: there it would change what templates mean.
pub fn default_pod(spec: &mut Value) {
    default_spec(spec);
    for field in ["initContainers", "containers"] {
        items(spec, field).for_each(default_requests);
    }
    whole::default_requests(spec);
    value::set_default(spec, "enableServiceLinks", true);
}

fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// The tag that changes under its name is always looked up again.
fn default_pull_policy(container: &mut Value) {
    if !container.is_object() || value::at(container, "imagePullPolicy").is_some() {
        return;
    }
    let policy = match tag(value::text(container, "image")) {
        Some("latest") | None => "Always",
        Some(_) => "IfNotPresent",
    };
    container["imagePullPolicy"] = policy.into();
}

/// What pins an image: its digest or its tag.
fn tag(image: &str) -> Option<&str> {
    if let Some((_, digest)) = image.split_once('@') {
        return Some(digest);
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map(|(_, tag)| tag)
}

fn default_host_port(port: &mut Value) {
    if let Some(number) = value::integer(port, "containerPort")
        && value::integer(port, "hostPort").unwrap_or(0) == 0
    {
        port["hostPort"] = number.into();
    }
}

/// Of what has a limit and no request, the limit is requested.
fn default_requests(container: &mut Value) {
    let Some(limits) = value::map(container, "resources.limits").cloned() else {
        return;
    };
    let requests = value::entry(container, "resources.requests");
    if requests.is_null() {
        *requests = Value::Object(JsonMap::new());
    }
    for (resource, limit) in limits {
        if requests.get(&resource).is_none() {
            requests[&resource] = limit;
        }
    }
}

fn default_volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else {
        return;
    };
    if fields.keys().all(|field| field == "name") {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
}

/// The old name of the field says the same as the new one.
fn default_service_account(spec: &mut Value) {
    let new = value::text(spec, "serviceAccountName").to_owned();
    let old = value::text(spec, "serviceAccount").to_owned();
    match (new.is_empty(), old.is_empty()) {
        (false, _) => spec["serviceAccount"] = new.into(),
        (true, false) => spec["serviceAccountName"] = old.into(),
        (true, true) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:2", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
        ] {
            let mut container = json!({"image": image});
            default_pull_policy(&mut container);
            assert_eq!(container["imagePullPolicy"], policy, "{image}");
        }
    }
}
