//! `nodes` and `pods` of `metrics.k8s.io/v1beta1`: get and list, selected as nodes and pods are.

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt;
use http::StatusCode;
use peapod_store::Scope;
use serde_json::{Value, json};

use super::summary::Use;
use super::{GROUP, Pair};
use crate::api::Api;
use crate::registry::{Kind, value};
use crate::rest::call::{Call, Reply};
use crate::rest::computed;
use crate::rest::selection::Selection;
use crate::rest::target::Verb;
use crate::rest::{respond, table};
use crate::status::{Result, Status};
use crate::storage;

/// How many nodes are asked at once.
const AT_ONCE: usize = 64;

/// Whether a kind's objects are what this shows.
pub fn serves(kind: &Kind) -> bool {
    kind.group == GROUP
}

/// Answers a request.
pub async fn serve(api: &Api, call: &Call) -> Result<Reply> {
    let of_nodes = call.kind().plural == "nodes";
    let found = found(api, call)?;
    let node_of = |object: &Value| match of_nodes {
        true => value::text(object, "metadata.name").to_owned(),
        false => value::text(object, "spec.nodeName").to_owned(),
    };
    let nodes: BTreeSet<String> = found
        .iter()
        .map(node_of)
        .filter(|node| !node.is_empty())
        .collect();
    let (pairs, fault) = accounts(api, nodes).await;
    let now = api.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let shown = found.iter().filter_map(|object| {
        let pair = pairs.get(&node_of(object))?;
        shown(object, pair, of_nodes, &now)
    });
    let items: Vec<Value> = shown.collect();
    if call.verb == Verb::Get {
        let name = &call.target.name;
        let not_found = || Status::not_found(call.kind().group_resource(), name);
        return match items.into_iter().next() {
            Some(item) => respond::value(api, call, StatusCode::OK, item),
            None => Err(fault.unwrap_or_else(not_found)),
        };
    }
    computed::list(api, call, json!({}), items).await
}

/// The nodes or pods that a request is about.
fn found(api: &Api, call: &Call) -> Result<Vec<Value>> {
    let resource = api.registry.find("", "v1", &call.kind().plural);
    let resource = resource.ok_or_else(Status::no_such_path)?;
    let options = call.query.list_options()?;
    let selection = Selection::of(&resource, &options, &call.target.name)?;
    let scope = match call.target.namespace.as_str() {
        "" => Scope::All,
        namespace => Scope::Namespace(namespace),
    };
    let snapshot = api.store.snapshot(&storage::range(&resource.kind));
    let entries = snapshot.range(scope, None);
    entries
        .filter(|entry| selection.matches(entry))
        .map(|entry| table::decode(&resource, &entry.value))
        .collect()
}

/// The accounts of nodes; of those that do not answer one refusal.
async fn accounts(api: &Api, nodes: BTreeSet<String>) -> (HashMap<String, Pair>, Option<Status>) {
    if let Some(kind) = api.registry.find("", "v1", "nodes") {
        let known = |node: &str| {
            let key = storage::key(&kind.kind, "", node);
            key.is_ok_and(|key| api.store.get(&key).is_some())
        };
        api.usage.retain(known);
    }
    let mut asking = Vec::new();
    for node in nodes {
        asking.push(async move {
            let pair = api.usage.of_node(api, &node).await;
            (node, pair)
        });
    }
    let answers: Vec<_> = futures::stream::iter(asking)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut pairs = HashMap::new();
    let mut fault = None;
    for (node, answer) in answers {
        match answer {
            Ok(pair) => drop(pairs.insert(node, pair)),
            Err(status) => {
                tracing::debug!(node, %status, "a node does not say what it uses");
                fault = Some(status);
            }
        }
    }
    (pairs, fault)
}

fn shown(object: &Value, pair: &Pair, of_node: bool, now: &str) -> Option<Value> {
    let (namespace, name) = (
        value::text(object, "metadata.namespace"),
        value::text(object, "metadata.name"),
    );
    let mut meta = json!({"name": name, "creationTimestamp": now});
    value::set_or_remove(
        &mut meta,
        "labels",
        value::at(object, "metadata.labels").cloned(),
    );
    if of_node {
        return Some(pair.later.node_since(&pair.earlier)?.node(meta));
    }
    meta["namespace"] = namespace.into();
    let containers = pair.later.pod_since(&pair.earlier, namespace, name)?;
    Use::pod(meta, &containers)
}
