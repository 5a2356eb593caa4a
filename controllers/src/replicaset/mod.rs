//! ReplicaSets: as many pods of a template as asked for. ReplicationControllers are the same
//! under an older name.
//!
//! [`core`] decides, [`rank`] chooses whom to delete; this file claims, creates and deletes;
//! [`kinds`] says how the two kinds differ.

pub mod core;
mod kinds;
pub(crate) mod rank;

use std::iter::repeat_n;
use std::marker::PhantomData;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use peapod_api::selector::Selector;

use self::core::{Failure, Observed, Step};
use self::kinds::Replicated;
use crate::common::{Key, owner, pods};
use crate::shell::context::term;
use crate::shell::pod_control::PodControl;
use crate::shell::{Context, Controller, Error, Loop, Outcome, Result, Tasks, claims};

/// Pod annotation: pods with a lower cost are deleted first; an `i32`, 0 when missing.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

struct Sets<S> {
    ctx: Context,
    pods: PodControl,
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
            let all = S::informer(&informers);
            let orphan = |pod: &Pod| claims::possible_owners(all, &pod.metadata, selector::<S>);
            claims::owners_of(change, &S::kind(&()), orphan)
        })
        .run(
            tasks,
            Sets::<S> {
                ctx: ctx.clone(),
                pods: PodControl::new(ctx, S::COMPONENT),
                kind: PhantomData,
            },
        );
}

fn selector<S: Replicated>(set: &S) -> Result<Selector> {
    claims::selector_of(set, set.selector())
}

impl<S: Replicated> Controller for Sets<S> {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(source) = S::informer(&self.ctx.informers).get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let selector = selector(&*source)?;
        let claimed = self
            .pods
            .claim(&*source, &selector, pods::is_active)
            .await?;
        let waiting = self.pods.unsettled(key, &claimed);
        let set = source.as_set();
        let observed = Observed {
            set: &set,
            owned: &claimed,
            related: &self.related(&source),
            settled: waiting.is_none(),
        };
        let step = core::step(&observed, Timestamp::now());
        let done = self.carry_out(&source, &set, step).await;
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
    /// The pods of this set and of its siblings.
    fn related(&self, source: &S) -> Vec<Arc<Pod>> {
        let uids = source.siblings(&self.ctx.informers);
        uids.iter()
            .flat_map(|uid| self.ctx.informers.pods.indexed(&term::owned_by(uid)))
            .collect()
    }

    async fn carry_out(&self, source: &S, set: &ReplicaSet, step: Step) -> Done {
        match step {
            Step::Keep => Ok(()),
            Step::Create(count) => {
                let pod = core::new_pod(set, owner::controller_reference(source));
                let created = self.pods.create_all(source, repeat_n(&pod, count)).await;
                created.map_err(|error| (Failure::Create, error))
            }
            Step::Delete(pods) => {
                let deleted = self.pods.delete_all(source, &pods).await;
                deleted.map_err(|error| (Failure::Delete, error))
            }
        }
    }
}
