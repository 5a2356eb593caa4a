//! Rules reviews: everything that one may do in a namespace, as `kubectl auth can-i --list`
//! shows it.

use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::node::rules::node_of;
use crate::registry::value;
use crate::rest::call::Call;
use crate::status::{Result, Status};

/// The status of a review of one's own rules.
pub fn review(api: &Api, call: &Call, review: &Value) -> Result<Value> {
    let namespace = value::text(review, "spec.namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, missing) = api.rbac.rules_of(&call.user, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .partition(|rule| !rule.non_resource_urls.is_empty());
    let mut faults: Vec<String> = missing.iter().map(ToString::to_string).collect();
    if node_of(&call.user).is_some() {
        // What a node may do depends on its pods, which is no list of rules.
        faults.push("node authorizer does not support user rule resolution".to_owned());
    }
    let mut status = json!({
        "incomplete": !faults.is_empty(),
        "resourceRules": resources,
        "nonResourceRules": paths,
    });
    if !faults.is_empty() {
        status["evaluationError"] = faults.join(", ").into();
    }
    Ok(status)
}
