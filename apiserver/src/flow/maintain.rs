//! Keeps the objects of flow control: the mandatory ones as they must be, the suggested ones as
//! they are suggested unless someone took them over, and the conditions of the schemas.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::api::{Api as Objects, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use peapod_store::{Interest, Scope};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::{GROUP, LEVELS, SCHEMAS, bootstrap};
use crate::api::Api;
use crate::registry::value;
use crate::storage;

/// Who writes specs here.
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
/// Who writes conditions.
const CONDITIONS: &str = "api-priority-and-fairness-config-consumer-v1";
/// How long a failed write rests before it is tried again.
const REST: Duration = Duration::from_secs(1);
/// How many objects are written at once; they share the store's flushes.
const AT_ONCE: usize = 32;

/// What is to be done about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// It is made.
    Create,
    /// Its spec becomes this table's.
    Update,
}

/// Decides about one object.
pub fn step(wanted: &Value, present: Option<&Value>) -> Step {
    let Some(present) = present else {
        return Step::Create;
    };
    let meta = &present["metadata"];
    let follows = match meta["annotations"][bootstrap::AUTOUPDATE].as_str() {
        Some(said) => said == "true",
        // Made before there was the annotation: its maker's, if nobody touched it since.
        None => meta["generation"] == 1,
    };
    let mandatory = bootstrap::is_mandatory(value::text(wanted, "metadata.name"));
    let annotated = meta["annotations"][bootstrap::AUTOUPDATE] == "true";
    let same = present["spec"] == wanted["spec"] && (annotated || !mandatory);
    match (mandatory || follows) && !same {
        true => Step::Update,
        false => Step::Keep,
    }
}

/// The condition that a schema should have: whether its level is missing.
pub fn dangling(schema: &Value, levels: &[&str]) -> Value {
    let level = value::text(schema, "spec.priorityLevelConfiguration.name");
    let found = levels.contains(&level);
    let about =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    json!({
        "type": "Dangling",
        "status": if found { "False" } else { "True" },
        "reason": if found { "Found" } else { "NotFound" },
        "message": match found {
            true => format!("{about} and it exists"),
            false => format!("{about} but there is no such object"),
        },
    })
}

/// Puts all objects right, once.
///
/// # Errors
/// Which object could not be written, and why.
pub async fn settle(api: &Api, client: &kube::Client) -> Result<(), (String, kube::Error)> {
    let (schemas, levels) = (stored(api, SCHEMAS), stored(api, LEVELS));
    let mut writes = Vec::new();
    for wanted in bootstrap::objects() {
        let present = match value::text(wanted, "kind") {
            "FlowSchema" => &schemas,
            _ => &levels,
        };
        let name = value::text(wanted, "metadata.name");
        let named = |one: &&Value| value::text(one, "metadata.name") == name;
        let step = step(wanted, present.iter().find(named));
        writes.push(carry_out(client, wanted, step).boxed());
    }
    all(writes).await?;
    conditions(api, client).await
}

/// Keeps all objects right until it is dropped.
pub fn spawn(api: Arc<Api>, client: kube::Client) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api, client)))
}

async fn run(api: Arc<Api>, client: kube::Client) {
    let ranges = [SCHEMAS, LEVELS].map(|plural| {
        let kind = api.registry.find(GROUP, "v1", plural);
        kind.map(|kind| storage::range(&kind.kind))
    });
    let [Some(schemas), Some(levels)] = ranges else {
        return;
    };
    loop {
        let watch = |range: &peapod_store::Resource| {
            let from = api.store.snapshot(range).revision();
            api.store.watch(Interest::new(range.clone()), from)
        };
        let (Ok(mut schemas), Ok(mut levels)) = (watch(&schemas), watch(&levels)) else {
            tokio::time::sleep(REST).await;
            continue;
        };
        loop {
            let settled = settle(&api, &client).await;
            if let Err((what, fault)) = &settled {
                tracing::warn!(%what, %fault, "cannot put flow control right; trying again");
            }
            let alive = tokio::select! {
                event = schemas.next() => event.is_ok(),
                event = levels.next() => event.is_ok(),
                () = tokio::time::sleep(REST), if settled.is_err() => true,
            };
            if !alive {
                break;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn stored(api: &Api, plural: &str) -> Vec<Value> {
    let Some(kind) = api.registry.find(GROUP, "v1", plural) else {
        return Vec::new();
    };
    let snapshot = api.store.snapshot(&storage::range(&kind.kind));
    let entries = snapshot.range(Scope::All, None);
    entries
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect()
}

fn objects(client: &kube::Client, kind: &str) -> Objects<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind));
    Objects::all_with(client.clone(), &resource)
}

async fn carry_out(
    client: &kube::Client,
    wanted: &Value,
    step: Step,
) -> Result<(), (String, kube::Error)> {
    let (kind, name) = (
        value::text(wanted, "kind"),
        value::text(wanted, "metadata.name"),
    );
    let api = objects(client, kind);
    let done = match step {
        Step::Keep => return Ok(()),
        Step::Create => {
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            match serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError) {
                Ok(object) => api.create(&params, &object).await.map(drop),
                Err(fault) => Err(fault),
            }
        }
        Step::Update => {
            let ops = json!([
                {"op": "add", "path": "/spec", "value": wanted["spec"]},
                {"op": "add", "path": "/metadata/annotations",
                    "value": wanted["metadata"]["annotations"]},
            ]);
            match serde_json::from_value(ops).map_err(kube::Error::SerdeError) {
                Ok(patch) => {
                    let params = PatchParams {
                        field_manager: Some(MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    let patched = api.patch(name, &params, &Patch::Json::<()>(patch)).await;
                    patched.map(drop)
                }
                Err(fault) => Err(fault),
            }
        }
    };
    settled(done).map_err(|fault| (format!("{kind} {name}"), fault))
}

/// Another server may write the same at the same time, or somebody delete it: the event of that
/// calls here again.
fn settled(done: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        done => done,
    }
}

async fn conditions(api: &Api, client: &kube::Client) -> Result<(), (String, kube::Error)> {
    let levels = stored(api, LEVELS);
    let names: Vec<&str> = levels
        .iter()
        .map(|one| value::text(one, "metadata.name"))
        .collect();
    let schemas = stored(api, SCHEMAS);
    let interface = objects(client, "FlowSchema");
    let now = api.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut writes = Vec::new();
    for schema in &schemas {
        let mut condition = dangling(schema, &names);
        let mut present = value::list(schema, "status.conditions").iter();
        let present = present.find(|one| one["type"] == "Dangling");
        let same = |one: &Value| {
            ["status", "reason", "message"]
                .iter()
                .all(|field| one[*field] == condition[*field])
        };
        if present.is_some_and(same) {
            continue;
        }
        condition["lastTransitionTime"] = now.as_str().into();
        let name = value::text(schema, "metadata.name").to_owned();
        let patch = json!({"status": {"conditions": [condition]}});
        let interface = &interface;
        let write = async move {
            let params = PatchParams {
                field_manager: Some(CONDITIONS.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Strategic(patch);
            let patched = interface.patch_status(&name, &params, &patch);
            let done = patched.await.map(drop);
            settled(done).map_err(|fault| (format!("FlowSchema {name}"), fault))
        };
        writes.push(write.boxed());
    }
    all(writes).await
}

async fn all(
    writes: Vec<BoxFuture<'_, Result<(), (String, kube::Error)>>>,
) -> Result<(), (String, kube::Error)> {
    let writing = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
    writing.try_collect::<()>().await
}
