//! Puts the default roles and bindings into the cluster, at every start.
//!
//! As upstream: what is missing is made; permissions, subjects, labels and annotations that are
//! missing are added; nothing is taken away. Who annotates an object with
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` keeps it as it is.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::rule::Rule;
use super::{GROUP, cover, policy};

/// Who writes here.
const MANAGER: &str = "kube-apiserver";
/// How many objects are written at once; they share the store's flushes.
const AT_ONCE: usize = 32;

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// It is made.
    Create,
    /// It becomes this.
    Update(Value),
    /// It is made anew: what a binding grants cannot be changed.
    Recreate,
}

/// Which default object could not be put right, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Fault {
    /// Kind and name.
    pub what: String,
    /// Why.
    pub source: kube::Error,
}

/// Decides about one default object.
pub fn step(wanted: &Value, present: Option<&Value>) -> Step {
    let Some(present) = present else {
        return Step::Create;
    };
    if present["metadata"]["annotations"][policy::AUTOUPDATE] == "false" {
        return Step::Keep;
    }
    if !wanted["roleRef"].is_null() && wanted["roleRef"] != present["roleRef"] {
        return Step::Recreate;
    }
    let mut new = present.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            let place = &mut new["metadata"][field];
            if place[key].is_null() {
                place[key] = value.clone();
            }
        }
    }
    match (wanted.get("aggregationRule"), wanted.get("rules")) {
        (Some(aggregation), _) => {
            if new["aggregationRule"] != *aggregation {
                new["aggregationRule"] = aggregation.clone();
            }
        }
        (None, Some(rules)) => add_rules(&mut new, rules),
        (None, None) => add_subjects(&mut new, &wanted["subjects"]),
    }
    match new == *present {
        true => Step::Keep,
        false => Step::Update(new),
    }
}

fn add_rules(role: &mut Value, wanted: &Value) {
    let read =
        |value: &Value| -> Vec<Rule> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let missing = cover::missing(&read(&role["rules"]), &read(wanted));
    if missing.is_empty() {
        return;
    }
    let mut rules = role["rules"].as_array().cloned().unwrap_or_default();
    let missing = cover::compact(&missing);
    rules.extend(
        missing
            .iter()
            .filter_map(|rule| serde_json::to_value(rule).ok()),
    );
    role["rules"] = rules.into();
}

fn add_subjects(binding: &mut Value, wanted: &Value) {
    let mut subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
    for subject in wanted.as_array().into_iter().flatten() {
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
}

/// Puts every default object right. Roles come first, so that no binding names a missing one.
pub async fn run(client: &kube::Client) -> Result<(), Fault> {
    let (bindings, roles): (Vec<_>, Vec<_>) = policy::objects()
        .iter()
        .partition(|object| !object["roleRef"].is_null());
    for batch in [roles, bindings] {
        let present = present(client, &batch).await?;
        let writes = batch.into_iter().map(|wanted| {
            let step = step(wanted, present.get(&id(wanted)));
            carry_out(client, wanted, step)
        });
        futures::stream::iter(writes)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

/// Kind, namespace and name.
type Id = (String, String, String);

fn id(object: &Value) -> Id {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    (
        text(&object["kind"]),
        text(&meta["namespace"]),
        text(&meta["name"]),
    )
}

/// The objects of the same kinds that there are.
async fn present(client: &kube::Client, wanted: &[&Value]) -> Result<HashMap<Id, Value>, Fault> {
    let mut kinds: Vec<&str> = wanted
        .iter()
        .filter_map(|one| one["kind"].as_str())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut all = HashMap::new();
    for kind in kinds {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.map_err(|source| Fault {
            what: kind.to_owned(),
            source,
        })?;
        for object in listed {
            let mut object = serde_json::to_value(object).unwrap_or_default();
            object["kind"] = kind.into();
            object["apiVersion"] = format!("{GROUP}/v1").into();
            all.insert(id(&object), object);
        }
    }
    Ok(all)
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind))
}

async fn carry_out(client: &kube::Client, wanted: &Value, step: Step) -> Result<(), Fault> {
    let (kind, namespace, name) = id(wanted);
    let resource = resource(&kind);
    let api: Api<DynamicObject> = match namespace.as_str() {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let fault = |source| Fault {
        what: format!("{kind} {name}"),
        source,
    };
    let typed = |object: &Value| serde_json::from_value(object.clone());
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let create = async || {
        let object = typed(wanted).map_err(kube::Error::SerdeError)?;
        match api.create(&params, &object).await {
            // Another server starts at the same time, with the same objects.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            created => created.map(drop),
        }
    };
    let done = match step {
        Step::Keep => Ok(()),
        Step::Create => create().await,
        Step::Update(new) => match typed(&new).map_err(kube::Error::SerdeError) {
            Ok(object) => match api.replace(&name, &params, &object).await {
                // Whoever wrote in between is another server, or an administrator.
                Err(kube::Error::Api(status)) if status.reason == "Conflict" => Ok(()),
                replaced => replaced.map(drop),
            },
            Err(fault) => Err(fault),
        },
        Step::Recreate => match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => create().await,
            Err(fault) => Err(fault),
        },
    };
    done.map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(rules: Value) -> Value {
        json!({
            "kind": "ClusterRole",
            "metadata": {"name": "r", "labels": {"a": "1"}, "annotations": {policy::AUTOUPDATE: "true"}},
            "rules": rules,
        })
    }

    fn binding(role: &str, subjects: Value) -> Value {
        json!({
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": subjects,
        })
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_is_taken_away() {
        let rule = |verbs: Value| json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
        let wanted = role(json!([rule(json!(["get", "list"]))]));
        assert_eq!(step(&wanted, None), Step::Create);
        assert_eq!(step(&wanted, Some(&wanted)), Step::Keep);
        let more = role(json!([rule(json!(["*"]))]));
        assert_eq!(step(&wanted, Some(&more)), Step::Keep);
        let mut less = role(json!([rule(json!(["get", "delete"]))]));
        less["metadata"]["labels"] = json!({"own": "x", "a": "2"});
        let Step::Update(new) = step(&wanted, Some(&less)) else {
            panic!("it was not put right");
        };
        assert_eq!(
            new["rules"],
            json!([rule(json!(["get", "delete"])), rule(json!(["list"]))])
        );
        assert_eq!(new["metadata"]["labels"], json!({"own": "x", "a": "2"}));
        less["metadata"]["annotations"][policy::AUTOUPDATE] = "false".into();
        assert_eq!(step(&wanted, Some(&less)), Step::Keep);
    }

    #[test]
    fn an_aggregated_role_keeps_the_rules_that_were_gathered() {
        let mut wanted = role(json!([]));
        wanted["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {"x": "true"}}]});
        let mut present = wanted.clone();
        present["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(step(&wanted, Some(&present)), Step::Keep);
    }

    #[test]
    fn bindings() {
        let (a, b) = (
            json!({"kind": "User", "name": "a"}),
            json!({"kind": "User", "name": "b"}),
        );
        let wanted = binding("r", json!([a]));
        let others = binding("r", json!([b]));
        let both = binding("r", json!([b, a]));
        assert_eq!(step(&wanted, Some(&others)), Step::Update(both.clone()));
        assert_eq!(step(&wanted, Some(&both)), Step::Keep);
        let elsewhere = binding("other", json!([a]));
        assert_eq!(step(&wanted, Some(&elsewhere)), Step::Recreate);
    }
}
