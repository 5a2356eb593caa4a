//! `/scale`: how many replicas there are and should be, of any kind that counts them.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::registry::{FieldError, FieldErrors, ScalePaths, value};
use crate::rest::call::{Call, Reply};
use crate::rest::negotiate::PatchType;
use crate::rest::target::Verb;
use crate::rest::{fields, get, options, patch, respond, table, update, write::Write};
use crate::status::{Result, Status};

/// Answers a request on `/scale`.
pub async fn serve(api: &Api, call: &Call, paths: &ScalePaths) -> Result<Reply> {
    if call.verb == Verb::Get {
        let entry = get::entry(api, call)?;
        let object = table::decode(&call.resource, &entry.value)?;
        let path = &paths.spec_replicas;
        if call.kind().custom && value::at(&object, path).is_none() {
            let why = format!("the spec replicas field \".{path}\" does not exist");
            return Err(Status::internal(why));
        }
        return respond::value(api, call, StatusCode::OK, of(&object, paths));
    }
    let options = options::of(call)?;
    let manager = fields::manager(&options, call);
    let write = Write::asked(api, call, &options, &manager);
    let change = change(api, call)?;
    let written = update::modify(&write, |old| {
        let present = of(old, paths);
        let wanted = change(&present)?;
        checked(&write, &wanted)?;
        let mut new = old.clone();
        let replicas = value::integer(&wanted, "spec.replicas").unwrap_or(0);
        value::set(&mut new, &paths.spec_replicas, replicas);
        for field in ["metadata.resourceVersion", "metadata.uid"] {
            let given = value::at(&wanted, field).cloned();
            value::set_or_remove(&mut new, field, given);
        }
        Ok(new)
    })
    .await?;
    let object = table::decode(&call.resource, &written.bytes)?;
    respond::value(api, call, StatusCode::OK, of(&object, paths))
}

type Change = Box<dyn Fn(&Value) -> Result<Value> + Send + Sync>;

/// What the request makes of a scale.
fn change(api: &Api, call: &Call) -> Result<Change> {
    if call.verb == Verb::Update {
        let given = super::body(api, call)?;
        return Ok(Box::new(move |_| Ok(given.clone())));
    }
    let form = PatchType::of(&call.headers)?;
    // A scale has no lists: strategic and plain merge are the same.
    let form = if form == PatchType::Strategic {
        PatchType::Merge
    } else {
        form
    };
    let given = patch::decoded(call, form)?;
    let resource = call.resource.clone();
    Ok(Box::new(move |present| {
        let mut wanted = patch::merged(form, present, &given, &resource)?;
        // A patch names a version only where it says so itself.
        if given.pointer("/metadata/resourceVersion").is_none() {
            value::remove(&mut wanted, "metadata.resourceVersion");
        }
        Ok(wanted)
    }))
}

fn checked(write: &Write<'_>, wanted: &Value) -> Result<()> {
    let replicas = value::integer(wanted, "spec.replicas").unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let mut errors = FieldErrors::new();
    errors.push(FieldError::invalid(
        "spec.replicas",
        replicas,
        "must be greater than or equal to 0",
    ));
    Err(Status::invalid("autoscaling", "Scale", write.name, &errors))
}

/// The scale of an object.
fn of(object: &Value, paths: &ScalePaths) -> Value {
    let mut meta = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(found) = object["metadata"].get(field) {
            meta.insert(field.to_owned(), found.clone());
        }
    }
    let count = |path: &str| value::integer(object, path).unwrap_or(0);
    let mut status = json!({"replicas": count(&paths.status_replicas)});
    let selector = selector(value::at(object, &paths.selector));
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    if count(&paths.spec_replicas) != 0 {
        spec["replicas"] = count(&paths.spec_replicas).into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": spec,
        "status": status,
    })
}

/// A selector as text: of a label selector, or of a plain map.
fn selector(found: Option<&Value>) -> String {
    use peapod_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use peapod_api::selector::Selector;
    let Some(found) = found else {
        return String::new();
    };
    let structured = found.get("matchLabels").is_some() || found.get("matchExpressions").is_some();
    let parsed = match structured {
        true => serde_json::from_value::<LabelSelector>(found.clone())
            .ok()
            .and_then(|selector| Selector::from_label_selector(&selector).ok()),
        false => {
            serde_json::from_value::<std::collections::BTreeMap<String, String>>(found.clone())
                .ok()
                .map(|map| Selector::from_map(&map))
        }
    };
    parsed
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_counts_and_selector() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "b", "resourceVersion": "7", "labels": {}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        });
        let scale = of(&object, &ScalePaths::default());
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(
            scale["status"],
            json!({"replicas": 2, "selector": "app=web"})
        );
        assert_eq!(scale["metadata"]["resourceVersion"], "7");
        assert_eq!(selector(Some(&json!({"a": "b"}))), "a=b");
    }
}
