//! Keeps what is served true to the definitions: watches them, gives them their names and
//! conditions, fills the registry, and cleans up behind those that go.
//!
//! Level-triggered: every change leads to the same comparison of all definitions with what is
//! served. A lost race or a restart begins it anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use peapod_store::{Interest, Scope};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::names::Taken;
use super::present::Present;
use super::{CLEANUP_FINALIZER, GROUP, PLURAL, is_true, serve, status};
use crate::api::Api;
use crate::registry::{Resource, value};
use crate::rest::delete::{self, DeleteOptions};
use crate::rest::update;
use crate::rest::write::Write;
use crate::status::Status;
use crate::storage;

/// How long a failed step rests before it is tried again.
const REST: Duration = Duration::from_secs(1);

/// Fills the registry from the store: what was established is served from the first request on.
pub fn load(api: &Arc<Api>) -> Present {
    let mut present = Present::default();
    let definitions = present.read(api);
    present.serve(api, &definitions);
    present
}

/// Runs until it is dropped.
pub fn spawn(api: Arc<Api>, present: Present) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api, present)))
}

async fn run(api: Arc<Api>, mut present: Present) {
    let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
        return;
    };
    let range = storage::range(&kind.kind);
    let mut cleanups = Cleanups::default();
    loop {
        let from = api.store.snapshot(&range).revision();
        let Ok(mut events) = api.store.watch(Interest::new(range.clone()), from) else {
            tokio::time::sleep(REST).await;
            continue;
        };
        loop {
            let settled = sync(&api, &kind, &mut present, &mut cleanups).await;
            if let Err(fault) = &settled {
                tracing::warn!(%fault, "custom resource definitions are not settled; trying again");
            }
            tokio::select! {
                event = events.next() => {
                    if event.is_err() {
                        break;
                    }
                    // What came with it is looked at together.
                    while let Some(Ok(_)) = events.next().now_or_never() {}
                }
                () = tokio::time::sleep(REST), if settled.is_err() => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn sync(
    api: &Arc<Api>,
    kind: &Resource,
    present: &mut Present,
    cleanups: &mut Cleanups,
) -> Result<(), Status> {
    let mut all = present.read(api);
    let mut changed = Vec::new();
    for index in 0..all.len() {
        let definition = &all[index];
        if status::is_settled(definition) {
            continue;
        }
        let group = value::text(definition, "spec.group");
        let builtin = api.registry.builtin_of_group(group);
        let taken = Taken::by_others(definition, all.iter().map(|one| &**one), builtin);
        let next = status::next(definition, &taken, api.now());
        if next != definition["status"] {
            Arc::make_mut(&mut all[index])["status"] = next;
            changed.push(index);
        }
    }
    // Served first, and told after: who waits for the condition finds the resource.
    present.serve(api, &all);
    for index in changed {
        write_status(api, kind, &all[index]).await?;
    }
    let going = all
        .iter()
        .filter(|one| value::at(one, "metadata.deletionTimestamp").is_some());
    let going = going.filter(|one| has_finalizer(one)).cloned().collect();
    cleanups.keep(api, going);
    Ok(())
}

async fn write_status(api: &Api, kind: &Resource, definition: &Value) -> Result<(), Status> {
    let name = value::text(definition, "metadata.name");
    let write = Write::by_server(api, kind, "", name);
    let written = update::assign(&write, |old| {
        let same = old["metadata"]["generation"] == definition["metadata"]["generation"]
            && old["metadata"]["uid"] == definition["metadata"]["uid"];
        if !same {
            // It changed meanwhile; the next round looks at it as it is then.
            return Ok(old.clone());
        }
        let mut new = old.clone();
        for field in ["acceptedNames", "conditions", "observedGeneration"] {
            let next = definition["status"].get(field).cloned();
            value::set_or_remove(&mut new["status"], field, next);
        }
        if is_true(old, "Terminating") && !is_true(&new, "Terminating") {
            return Ok(old.clone());
        }
        Ok(new)
    })
    .await;
    gone_is_fine(written.map(drop))
}

fn gone_is_fine(outcome: Result<(), Status>) -> Result<(), Status> {
    match outcome {
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome,
    }
}

fn has_finalizer(definition: &Value) -> bool {
    let all = value::list(definition, "metadata.finalizers");
    all.iter().any(|one| one == CLEANUP_FINALIZER)
}

/// The definitions that are being deleted, each with the task that deletes its objects.
#[derive(Default)]
struct Cleanups {
    running: HashMap<String, tokio::task::AbortHandle>,
    tasks: JoinSet<()>,
}

// === impl Cleanups ===

impl Cleanups {
    fn keep(&mut self, api: &Arc<Api>, going: Vec<Arc<Value>>) {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|_, task| !task.is_finished());
        for definition in going {
            let uid = value::text(&definition, "metadata.uid").to_owned();
            if !self.running.contains_key(&uid) {
                let work = clean_up(api.clone(), definition);
                self.running.insert(uid, self.tasks.spawn(work));
            }
        }
    }
}

/// Deletes the objects of a definition, and lets it go when the last has gone.
async fn clean_up(api: Arc<Api>, definition: Arc<Value>) {
    while let Err(fault) = clean_up_once(&api, &definition).await {
        tracing::warn!(%fault, definition = value::text(&definition, "metadata.name"), "cannot clean up; trying again");
        tokio::time::sleep(REST).await;
    }
}

async fn clean_up_once(api: &Arc<Api>, definition: &Value) -> Result<(), Status> {
    // One whose names were never accepted has none. The webhook that converts them may be gone already.
    let established = is_true(definition, "Established");
    if let Some(resource) = serve::stored(definition, &Arc::downgrade(api)).filter(|_| established)
    {
        delete_all(api, &resource).await?;
    }
    let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
        return Ok(());
    };
    let name = value::text(definition, "metadata.name");
    let write = Write::by_server(api, &kind, "", name);
    let written = update::assign(&write, |old| {
        let mut new = old.clone();
        let mut finalizers = value::list(old, "metadata.finalizers").to_vec();
        finalizers.retain(|one| one != CLEANUP_FINALIZER);
        let left = (!finalizers.is_empty()).then_some(Value::Array(finalizers));
        value::set_or_remove(&mut new, "metadata.finalizers", left);
        Ok(new)
    })
    .await;
    gone_is_fine(written.map(drop))
}

async fn delete_all(api: &Api, resource: &Resource) -> Result<(), Status> {
    let range = storage::range(&resource.kind);
    let snapshot = api.store.snapshot(&range);
    let watch = api
        .store
        .watch(Interest::new(range.clone()), snapshot.revision());
    let mut events = watch.map_err(Status::internal)?;
    loop {
        let snapshot = api.store.snapshot(&range);
        let left: Vec<_> = snapshot.range(Scope::All, None).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        for entry in &left {
            let key = &entry.key;
            let write = Write::by_server(api, resource, key.namespace(), key.name());
            let removed = delete::remove(&write, &DeleteOptions::default()).await;
            gone_is_fine(removed.map(drop))?;
        }
        if api.store.snapshot(&range).is_empty() {
            return Ok(());
        }
        // The rest have finalizers of their own.
        events.next().await.map_err(Status::internal)?;
    }
}
