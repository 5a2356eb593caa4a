//! The garbage collector: what nobody owns any more goes, in the order that was asked for.
//!
//! [`monitor`] watches every kind and feeds the [`graph`], which says what to look at;
//! [`decide`] judges one object by what its owners are found to be. Nothing is deleted on the
//! word of a cache alone: the object and an owner that seems to be gone are asked for live.

mod decide;
mod graph;
mod monitor;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, Preconditions, PropagationPolicy};
use peapod_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use serde_json::{Value, json};

use self::decide::{Owner, Verdict};
use self::graph::{Leaving, Place, View};
use self::monitor::{Monitors, leaving};
use crate::common::Key;
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Error, Loop, Outcome, Queue, Result, Tasks, write};

const NAME: &str = "garbage_collector_attempt_to_delete";
/// Objects looked at at the same time.
const WORKERS: usize = 20;
/// The namespaces of the queue's keys; their names are uids.
const DELETE: &str = "delete";
const ORPHAN: &str = "orphan";
/// How long dependents may stay unknown before a foreground deletion is put off.
const SYNC_MAX: Duration = Duration::from_secs(30);

struct Collector {
    ctx: Context,
    monitors: Arc<Monitors>,
}

/// Wires the loop and its watches; `namespaces` is told of objects that go.
pub fn start(ctx: &Context, tasks: &mut Tasks, namespaces: Queue) {
    let wired = Loop::new(ctx, NAME).workers(WORKERS);
    let monitors = Monitors::new(ctx, wired.queue(), namespaces);
    tasks.spawn("garbage_collector_monitors", monitors.clone().run());
    wired.run(
        tasks,
        Collector {
            ctx: ctx.clone(),
            monitors,
        },
    );
}

impl Controller for Collector {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(view) = self.monitors.graph.lock().view(&key.name) else {
            return Ok(Outcome::Done);
        };
        if view.leaving == Leaving::Deleted {
            return Ok(Outcome::Done);
        }
        let Some(live) = self.live(&key.name, &view.place).await? else {
            self.monitors.lose(key.name.clone());
            return Ok(Outcome::Done);
        };
        match leaving(&live) {
            Leaving::Orphaning => self.orphan(&view, &live).await?,
            Leaving::AfterDependents => self.go_on(&view, &live).await?,
            Leaving::Deleted => {}
            Leaving::No if key.namespace == DELETE => self.judge(&view, &live).await?,
            Leaving::No => {}
        }
        Ok(Outcome::Done)
    }
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

impl Collector {
    /// The API of an object's kind, whatever version it was named by.
    fn api(&self, place: &Place) -> Result<Api<DynamicObject>> {
        let kinds = self.monitors.kinds.read();
        let name = (place.group.to_string(), place.kind.to_string());
        let kind = kinds.get(&name).ok_or_else(|| Error::Object {
            object: format!("{} {}", place.kind, place.name),
            fault: format!(
                "no kind {} in group {:?} is served",
                place.kind, place.group
            ),
        })?;
        Ok(kind.api(&self.ctx.client, &place.namespace))
    }

    fn is_namespaced(&self, place: &Place) -> bool {
        let kinds = self.monitors.kinds.read();
        let name = (place.group.to_string(), place.kind.to_string());
        kinds.get(&name).is_some_and(|kind| kind.namespaced)
    }

    /// The object's metadata as it is now; `None` when it is gone, or another has its name.
    async fn live(&self, uid: &str, place: &Place) -> Result<Option<ObjectMeta>> {
        if place.namespace.is_empty() && self.is_namespaced(place) {
            // A cluster-scoped object names a namespaced owner: nobody can say where that is.
            return Ok(None);
        }
        let found = self.api(place)?.get_metadata_opt(&place.name).await;
        let found = found.doing(|| format!("get {}", label(place)))?;
        let found = found.map(|found| found.metadata);
        Ok(found.filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    /// Judges an object that stays so far.
    async fn judge(&self, view: &View, live: &ObjectMeta) -> Result<()> {
        let references = live.owner_references.as_deref().unwrap_or_default();
        let mut owners = Vec::with_capacity(references.len());
        for reference in references {
            let owner = self.find_owner(reference, &view.place).await?;
            owners.push((reference.uid.clone(), owner));
        }
        match decide::decide(&owners, view) {
            Verdict::Keep => Ok(()),
            Verdict::DropOwners(lost) => {
                let left = references
                    .iter()
                    .filter(|reference| !lost.contains(&reference.uid));
                let left: Vec<_> = left.collect();
                let patch = json!({"ownerReferences": left});
                self.patch(&view.place, live, patch).await
            }
            Verdict::DeleteForeground { unblock } => {
                if unblock {
                    let mut references = references.to_vec();
                    for reference in &mut references {
                        reference.block_owner_deletion = Some(false);
                    }
                    let patch = json!({"ownerReferences": references});
                    self.patch(&view.place, live, patch).await?;
                }
                // Unblocking changed the resourceVersion, so that only the uid is bound.
                let bound = !unblock;
                self.delete(&view.place, live, PropagationPolicy::Foreground, bound)
                    .await
            }
            Verdict::Delete => {
                let has = |name: &str| live.finalizers.iter().flatten().any(|f| f == name);
                let policy = match () {
                    () if has(FINALIZER_ORPHAN) => PropagationPolicy::Orphan,
                    () if has(FINALIZER_FOREGROUND) => PropagationPolicy::Foreground,
                    () => PropagationPolicy::Background,
                };
                self.delete(&view.place, live, policy, true).await
            }
        }
    }

    /// What an owner is. The graph's word is enough for one that is there; one that is not must
    /// be asked for.
    async fn find_owner(&self, reference: &OwnerReference, dependent: &Place) -> Result<Owner> {
        let known = self.monitors.graph.lock().view(&reference.uid);
        if let Some(known) = known.filter(|known| !known.is_virtual) {
            let namespace = &known.place.namespace;
            if !namespace.is_empty() && dependent.namespace.is_empty() {
                return Ok(Owner::Solid);
            }
            if !namespace.is_empty() && *namespace != dependent.namespace {
                return Ok(Owner::Absent);
            }
            return Ok(match known.leaving {
                Leaving::AfterDependents => Owner::Waiting,
                _ => Owner::Solid,
            });
        }
        let group = reference
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let place = Place {
            group: group.into(),
            kind: reference.kind.as_str().into(),
            namespace: dependent.namespace.clone(),
            name: reference.name.clone(),
        };
        if dependent.namespace.is_empty() && self.is_namespaced(&place) {
            // Not resolvable; upstream keeps such objects too.
            return Ok(Owner::Solid);
        }
        Ok(match self.live(&reference.uid, &place).await? {
            None => Owner::Absent,
            Some(meta) if leaving(&meta) == Leaving::AfterDependents => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }

    /// Carries a foreground deletion on: dependents are looked at, and when none blocks any
    /// more the object may go.
    async fn go_on(&self, view: &View, live: &ObjectMeta) -> Result<()> {
        self.know_dependents(view).await?;
        let Some(view) = self.monitors.graph.lock().view(uid(live)) else {
            return Ok(());
        };
        if !view.dependents.iter().any(|dependent| dependent.blocks) {
            return self
                .drop_finalizer(&view.place, live, FINALIZER_FOREGROUND)
                .await;
        }
        let staying = view.dependents.iter().filter(|d| d.leaving == Leaving::No);
        staying.for_each(|dependent| self.monitors.look_at(&dependent.uid));
        Ok(())
    }

    /// Lets go of the dependents, then of the object.
    async fn orphan(&self, view: &View, live: &ObjectMeta) -> Result<()> {
        self.know_dependents(view).await?;
        let view = self.monitors.graph.lock().view(uid(live));
        let Some(view) = view else { return Ok(()) };
        for dependent in &view.dependents {
            let Some(found) = self.live(&dependent.uid, &dependent.place).await? else {
                continue;
            };
            let mut owners = found.owner_references.clone().unwrap_or_default();
            owners.retain(|owner| owner.uid != uid(live));
            let patch = json!({"ownerReferences": owners});
            self.patch(&dependent.place, &found, patch).await?;
        }
        self.drop_finalizer(&view.place, live, FINALIZER_ORPHAN)
            .await
    }

    /// Until every kind is listed there may be dependents that nobody has seen.
    async fn know_dependents(&self, view: &View) -> Result<()> {
        let synced = tokio::time::timeout(SYNC_MAX, self.monitors.synced()).await;
        synced.map_err(|_| Error::Object {
            object: label(&view.place),
            fault: "its deletion waits for its dependents, and not every kind could be listed \
                to find them; see the API server's logs for a kind whose list fails"
                .to_owned(),
        })
    }

    async fn drop_finalizer(&self, place: &Place, live: &ObjectMeta, name: &str) -> Result<()> {
        let finalizers = live.finalizers.iter().flatten().filter(|f| *f != name);
        let finalizers: Vec<_> = finalizers.collect();
        self.patch(place, live, json!({"finalizers": finalizers}))
            .await
    }

    /// Patches metadata, bound to the resourceVersion: lists are replaced as a whole.
    async fn patch(&self, place: &Place, live: &ObjectMeta, mut metadata: Value) -> Result<()> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let api = self.api(place)?;
        let written = api
            .patch_metadata(&place.name, &write::patch_params(), &patch)
            .await;
        written.unless_gone(|| format!("update {}", label(place)))?;
        Ok(())
    }

    async fn delete(
        &self,
        place: &Place,
        live: &ObjectMeta,
        policy: PropagationPolicy,
        bound: bool,
    ) -> Result<()> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: live.uid.clone(),
                resource_version: live.resource_version.clone().filter(|_| bound),
            }),
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        let deleted = self.api(place)?.delete(&place.name, &params).await;
        deleted.unless_gone(|| format!("delete {}", label(place)))?;
        Ok(())
    }
}

fn label(place: &Place) -> String {
    format!("{} {}", place.kind, Key::new(&place.namespace, &place.name))
}
