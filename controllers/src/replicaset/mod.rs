//! ReplicaSets: as many pods of a template as asked for. ReplicationControllers are the same
//! under an older name.
//!
//! [`core`] decides, [`rank`] chooses whom to delete; this file claims, creates and deletes;
//! [`kinds`] says how the two kinds differ.

pub mod core;
mod kinds;
pub(crate) mod rank;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::Resource;
use peapod_api::selector::Selector;

use self::core::{Failure, Observed, Step};
use self::kinds::Replicated;
use crate::common::{Key, owner, pods};
use crate::shell::context::{Informers, term};
use crate::shell::events::Note;
use crate::shell::expectations::Expectations;
use crate::shell::{
    Change, Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, informer, write,
};

/// Pod annotation: pods with a lower cost are deleted first; an `i32`, 0 when missing.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

struct Sets<S> {
    ctx: Context,
    expect: Expectations,
    kind: PhantomData<S>,
}

/// Wires the loops of both kinds.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    start_kind::<ReplicaSet>(ctx, tasks);
    start_kind::<ReplicationController>(ctx, tasks);
}

fn start_kind<S: Replicated>(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, S::NAME)
        .on_self(S::informer(&ctx.informers))
        .on(&ctx.informers.pods, move |change| {
            let orphan = |pod: &Pod| possible_owners::<S>(&informers, pod);
            owners_of(change, &S::kind(&()), orphan)
        })
        .run(
            tasks,
            Sets::<S> {
                ctx: ctx.clone(),
                expect: Expectations::default(),
                kind: PhantomData,
            },
        );
}

/// The keys of the controllers of `kind` of a changed object, old and new; for an object that
/// nothing controls, those that might adopt it.
pub(crate) fn owners_of<K: Resource>(
    change: &Change<K>,
    kind: &str,
    might_adopt: impl Fn(&K) -> Vec<Key>,
) -> Vec<Key> {
    let mut keys = Vec::new();
    for object in change.both() {
        if let Some(owner) = owner::controller_of(object.meta())
            && owner.kind == kind
        {
            keys.push(Key::new(change.key.namespace.clone(), &owner.name));
        }
    }
    let orphan = change
        .new
        .as_deref()
        .filter(|new| owner::controller_of(new.meta()).is_none());
    keys.extend(orphan.into_iter().flat_map(might_adopt));
    keys.dedup();
    keys
}

fn possible_owners<S: Replicated>(informers: &Informers, pod: &Pod) -> Vec<Key> {
    let Some(labels) = &pod.metadata.labels else {
        return Vec::new();
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let sets = S::informer(informers).in_namespace(namespace);
    let matching = sets
        .iter()
        .filter(|set| set.selector().is_ok_and(|s| s.matches(labels)));
    matching.map(|set| Key::of(&**set)).collect()
}

fn selector<S: Replicated>(set: &S) -> Result<Selector> {
    let parsed = set.selector();
    parsed.map_err(|fault| Error::Object {
        object: write::label::<S>(&Key::of(set)),
        fault: format!("spec.selector: {fault}"),
    })
}

impl<S: Replicated> Controller for Sets<S> {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(source) = S::informer(&self.ctx.informers).get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let uid = source.meta().uid.as_deref().unwrap_or_default();
        let mut owned = self.ctx.informers.pods.indexed(&term::owned_by(uid));
        let orphans = self
            .ctx
            .informers
            .pods
            .indexed(&term::orphans_of(&key.namespace));
        let orphans = orphans.into_iter().filter(|pod| pods::is_active(pod));
        let candidates = owned.drain(..).chain(orphans).collect();
        let selector = selector(&*source)?;
        let claimed = claims::claim_all(&self.ctx, &*source, &selector, candidates).await?;
        let waiting = self.unsettled(key, &claimed);
        let set = source.as_set();
        let observed = Observed {
            set: &set,
            owned: &claimed,
            related: &self.related(&source),
            settled: waiting.is_none(),
        };
        let step = core::step(&observed, Timestamp::now());
        let done = self.carry_out(key, &source, &set, step).await;
        let failure = done.as_ref().err().cloned_failure();
        let (status, wake) = core::status(&observed, failure, Timestamp::now());
        source.write_status(&self.ctx, status).await?;
        done.map_err(|(_, error)| error)?;
        Ok(Outcome::maybe(wake.into_iter().chain(waiting).min()))
    }
}

/// A step that failed, and why.
type Done = Result<(), (Failure, Error)>;

trait ClonedFailure {
    fn cloned_failure(self) -> Option<(Failure, String)>;
}

impl ClonedFailure for Option<&(Failure, Error)> {
    fn cloned_failure(self) -> Option<(Failure, String)> {
        self.map(|(failure, error)| (*failure, error.to_string()))
    }
}

impl<S: Replicated> Sets<S> {
    /// How much longer to wait until the cache shows our own writes.
    fn unsettled(&self, key: &Key, owned: &[Arc<Pod>]) -> Option<Duration> {
        let shown = self.ctx.informers.pods.revision();
        let alive = |uid: &str| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_deref() == Some(uid);
            owned
                .iter()
                .find(same)
                .is_some_and(|pod| !pods::is_terminating(pod))
        };
        self.expect.unmet(key, shown, alive, Instant::now())
    }

    /// The pods of this set and of its siblings.
    fn related(&self, source: &S) -> Vec<Arc<Pod>> {
        let uids = source.siblings(&self.ctx.informers);
        uids.iter()
            .flat_map(|uid| self.ctx.informers.pods.indexed(&term::owned_by(uid)))
            .collect()
    }

    async fn carry_out(&self, key: &Key, source: &S, set: &ReplicaSet, step: Step) -> Done {
        match step {
            Step::Keep => Ok(()),
            Step::Create(count) => {
                let pod = core::new_pod(set, owner::controller_reference(source));
                let created = self.create(key, source, &pod, count).await;
                created.map_err(|error| (Failure::Create, error))
            }
            Step::Delete(pods) => {
                let deleted = self.delete(key, source, pods).await;
                deleted.map_err(|error| (Failure::Delete, error))
            }
        }
    }

    /// Creates in batches of 1, 2, 4, ... and stops at the first batch with a failure, so that
    /// a template that the API refuses is refused once, not a thousand times.
    async fn create(&self, key: &Key, set: &S, pod: &Pod, count: usize) -> Result<()> {
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let creations = (0..size).map(|_| self.create_one(key, set, pod));
            let results = join_all(creations).await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                return Err(error);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, set: &S, pod: &Pod) -> Result<()> {
        match write::create(&self.ctx, pod).await {
            Ok(created) => {
                self.expect
                    .written(key, informer::revision(&created), Instant::now());
                let name = created.metadata.name.unwrap_or_default();
                self.tell(
                    set,
                    Note::normal("SuccessfulCreate", format!("Created pod: {name}")),
                );
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.tell(set, Note::warning("FailedCreate", message));
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &S, pods: Vec<Arc<Pod>>) -> Result<()> {
        let deletions = pods.iter().map(|pod| self.delete_one(key, set, pod));
        let results = join_all(deletions).await;
        results.into_iter().collect()
    }

    async fn delete_one(&self, key: &Key, set: &S, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.expect.deleted(key, uid, Instant::now());
        if let Err(error) = write::delete::<Pod>(&self.ctx, &pod.metadata).await {
            self.expect.forget(key);
            let message = format!("Error deleting: {error}");
            self.tell(set, Note::warning("FailedDelete", message));
            return Err(error);
        }
        self.tell(
            set,
            Note::normal("SuccessfulDelete", format!("Deleted pod: {name}")),
        );
        Ok(())
    }

    fn tell(&self, set: &S, note: Note) {
        self.ctx.events.record(S::COMPONENT, set, note);
    }
}
