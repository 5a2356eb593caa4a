//! `/eviction` of a pod: a deletion that asks the disruption budgets first.
//!
//! A budget's status says how many pods it can spare; an eviction takes one of them, in the
//! budget's own object, before it deletes the pod, so that concurrent evictions cannot take the
//! same one.

use http::StatusCode;
use jiff::Timestamp;
use peapod_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use peapod_api::selector::Selector;
use peapod_store::Scope;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::api::Api;
use crate::registry::{Resource, object_meta, value};
use crate::rest::call::{Call, Reply};
use crate::rest::delete::{self, DeleteOptions};
use crate::rest::query::{Query, WriteOptions};
use crate::rest::{get, options, respond, table, update, write::Write};
use crate::status::{Result, Status};
use crate::storage::{self, Entry};

/// Answers a POST of an Eviction.
pub async fn create(api: &Api, call: &Call) -> Result<Reply> {
    let mut options = options::of(call)?;
    let eviction = super::body(api, call)?;
    let query = Query::default();
    let deletion = delete::parse_options(&query, eviction.get("deleteOptions"))?;
    options.dry_run |= deletion.dry_run;
    let entry = get::entry(api, call)?;
    let pod = table::decode(&call.resource, &entry.value)?;
    let attributes = Attributes {
        operation: Operation::Create,
        resource: &call.resource,
        namespace: &call.target.namespace,
        name: &call.target.name,
        subresource: "eviction",
        user: &call.user,
        old: None,
        dry_run: options.dry_run,
    };
    api.admission.validate(api, &attributes, &eviction).await?;
    if needs_budget(&pod) {
        spend(api, call, &entry, &pod, &options).await?;
    }
    evict(api, call, &deletion, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::value(api, call, StatusCode::CREATED, done)
}

/// Pods that do not serve are evicted whatever the budgets say.
fn needs_budget(pod: &Value) -> bool {
    let phase = value::text(pod, "status.phase");
    let deleting = value::at(pod, "metadata.deletionTimestamp").is_some();
    !deleting && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

async fn evict(
    api: &Api,
    call: &Call,
    deletion: &DeleteOptions,
    options: &WriteOptions,
) -> Result<()> {
    let write = Write {
        subresource: "",
        ..Write::asked(api, call, options, "")
    };
    let deletion = DeleteOptions {
        dry_run: options.dry_run,
        ..deletion.clone()
    };
    // Who demands a version of the pod demands the one that it has now.
    if !deletion.dry_run && deletion.resource_version.is_none() {
        let write = Write {
            subresource: "status",
            ..write
        };
        update::assign(&write, |pod| Ok(disrupted(pod, api.now()))).await?;
    }
    delete::remove(&write, &deletion).await.map(drop)
}

/// The pod with the condition that tells why it is about to go.
fn disrupted(pod: &Value, now: Timestamp) -> Value {
    let mut new = pod.clone();
    let conditions = value::entry(&mut new, "status.conditions");
    let mut list = conditions.as_array().cloned().unwrap_or_default();
    list.retain(|one| one["type"] != "DisruptionTarget");
    list.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": object_meta::time(now),
    }));
    *conditions = list.into();
    new
}

async fn spend(
    api: &Api,
    call: &Call,
    pod: &Entry,
    object: &Value,
    options: &WriteOptions,
) -> Result<()> {
    let Some(budgets) = api.registry.find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let matching = matching(api, &budgets, pod)?;
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [only] => value::text(only, "metadata.name").to_owned(),
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let write = Write {
        resource: &budgets,
        name: &budget,
        subresource: "status",
        ..Write::asked(api, call, options, "")
    };
    let now = api.now();
    update::modify(&write, |old| taken(old, object, now))
        .await
        .map(drop)
}

/// The disruption budgets that select a pod.
fn matching(api: &Api, budgets: &Resource, pod: &Entry) -> Result<Vec<Value>> {
    let snapshot = api.store.snapshot(&storage::range(&budgets.kind));
    let scope = Scope::Namespace(pod.key.namespace());
    let mut found = Vec::new();
    for entry in snapshot.range(scope, None) {
        let budget = table::decode(budgets, &entry.value)?;
        let selector = value::at(&budget, "spec.selector").cloned();
        let selector = selector.and_then(|s| serde_json::from_value::<LabelSelector>(s).ok());
        let selector = selector.and_then(|s| Selector::from_label_selector(&s).ok());
        if selector.is_some_and(|s| s.matches_with(|key| pod.meta.label(key))) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// The budget with one disruption less to spare.
fn taken(budget: &Value, pod: &Value, now: Timestamp) -> Result<Value> {
    const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let name = value::text(budget, "metadata.name");
    let observed = value::integer(budget, "status.observedGeneration").unwrap_or(0);
    if observed < value::integer(budget, "metadata.generation").unwrap_or(0) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Status::disruption_budget(REFUSED, &cause));
    }
    let allowed = value::integer(budget, "status.disruptionsAllowed").unwrap_or(0);
    if allowed <= 0 {
        let number = |field: &str| value::integer(budget, &format!("status.{field}")).unwrap_or(0);
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy"),
        );
        return Err(Status::disruption_budget(REFUSED, &cause));
    }
    let mut new = budget.clone();
    value::set(&mut new, "status.disruptionsAllowed", allowed - 1);
    let disrupted = value::entry(&mut new, "status.disruptedPods");
    if !disrupted.is_object() {
        *disrupted = json!({});
    }
    disrupted[value::text(pod, "metadata.name")] = object_meta::time(now).into();
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicted_pod_says_so_once() {
        let pod = json!({"status": {"conditions": [{"type": "Ready"}]}});
        let now = Timestamp::from_second(0).unwrap();
        let told = disrupted(&disrupted(&pod, now), now);
        let conditions = value::list(&told, "status.conditions");
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[1]["reason"], "EvictionByEvictionAPI");
    }

    #[test]
    fn a_budget_is_spent_and_then_refuses() {
        let pod = json!({"metadata": {"name": "p"}});
        let now = Timestamp::from_second(0).unwrap();
        let budget = json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3},
        });
        let spent = taken(&budget, &pod, now).unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            spent["status"]["disruptedPods"]["p"],
            "1970-01-01T00:00:00Z"
        );
        let refused = taken(&spent, &pod, now).unwrap_err();
        assert_eq!(refused.code, 429);
    }
}
