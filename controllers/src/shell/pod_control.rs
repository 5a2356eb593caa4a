//! What the loops that own pods do with them: claim, create, delete, tell of it, and wait until
//! the cache shows it. Which pods, their cores decide.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use peapod_api::selector::Selector;

use super::context::term;
use super::events::Note;
use super::expectations::Expectations;
use super::informer::Kind;
use super::write::{self, Scope};
use super::{Context, Error, Result, claims, informer};
use crate::common::{Key, pods};

/// The text of an event: of what was done to a pod, and how it failed if it did.
pub type Wording = fn(Deed, &Key, &str, Option<&Error>) -> String;

/// What is done to a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is made.
    Create,
    /// It is ended.
    Delete,
}

/// The pods of the objects of one loop.
pub struct PodControl {
    ctx: Context,
    component: &'static str,
    wording: Wording,
    finalizer: Option<&'static str>,
    expect: Expectations,
}

impl PodControl {
    /// `component` is the source of the events.
    pub fn new(ctx: &Context, component: &'static str) -> Self {
        Self::worded(ctx, component, plain)
    }

    /// With events of another wording than most loops have.
    pub fn worded(ctx: &Context, component: &'static str, wording: Wording) -> Self {
        Self {
            ctx: ctx.clone(),
            component,
            wording,
            finalizer: None,
            expect: Expectations::default(),
        }
    }

    /// Pods have this finalizer as long as they are an owner's.
    pub fn holding(mut self, finalizer: &'static str) -> Self {
        self.finalizer = Some(finalizer);
        self
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, owner: &Key) {
        self.expect.forget(owner);
    }

    /// The pods of an owner: those that it has, and of those without a controller the ones that
    /// `adoptable` admits and the selector matches, which it adopts now.
    pub async fn claim<O: Kind + Scope>(
        &self,
        owner: &O,
        selector: &Selector,
        adoptable: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>> {
        let meta = owner.meta();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let all = &self.ctx.informers.pods;
        let mut candidates = all.indexed(&term::owned_by(uid));
        let orphans = all.indexed(&term::orphans_of(namespace));
        candidates.extend(orphans.into_iter().filter(|pod| adoptable(pod)));
        claims::claim_all(&self.ctx, owner, selector, candidates, self.finalizer).await
    }

    /// How much longer to wait until the cache shows our own writes.
    pub fn unsettled(&self, owner: &Key, owned: &[Arc<Pod>]) -> Option<Duration> {
        let shown = self.ctx.informers.pods.revision();
        let alive = |uid: &str| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_deref() == Some(uid);
            let found = owned.iter().find(same);
            found.is_some_and(|pod| !pods::is_terminating(pod))
        };
        self.expect.unmet(owner, shown, alive, Instant::now())
    }

    /// Creates in batches of 1, 2, 4, ... and stops at the first batch with a failure, so that
    /// a template that the API refuses is refused once, not a thousand times.
    pub async fn create_all<O: Kind, P>(
        &self,
        owner: &O,
        pods: impl IntoIterator<Item = P, IntoIter: Send>,
    ) -> Result<()>
    where
        P: Borrow<Pod> + Send + Sync,
    {
        let (mut left, mut batch) = (pods.into_iter(), 1);
        loop {
            let now: Vec<P> = left.by_ref().take(batch).collect();
            if now.is_empty() {
                return Ok(());
            }
            let creations = now.iter().map(|pod| self.create(owner, pod.borrow()));
            let created: Result<()> = join_all(creations).await.into_iter().collect();
            created?;
            batch *= 2;
        }
    }

    /// Creates a pod. In a namespace that ends nothing is created, and that is no failure.
    pub async fn create<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<()> {
        let key = Key::of(owner);
        match write::create(&self.ctx, pod).await {
            Ok(created) => {
                let revision = informer::revision(&created);
                self.expect.written(&key, revision, Instant::now());
                let text = (self.wording)(Deed::Create, &key, &created.name_any(), None);
                self.tell(owner, Note::normal("SuccessfulCreate", text));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let text = (self.wording)(Deed::Create, &key, &pod.name_any(), Some(&error));
                self.tell(owner, Note::warning("FailedCreate", text));
                Err(error)
            }
        }
    }

    /// Deletes pods, all at once; the first failure, when all have been tried.
    pub async fn delete_all<O: Kind>(&self, owner: &O, pods: &[Arc<Pod>]) -> Result<()> {
        let deletions = pods.iter().map(|pod| self.delete(owner, pod));
        join_all(deletions).await.into_iter().collect()
    }

    /// Deletes a pod, if it is still there.
    pub async fn delete<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<()> {
        let (key, name) = (Key::of(owner), pod.name_any());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.expect.deleted(&key, uid, Instant::now());
        if let Err(error) = write::delete::<Pod>(&self.ctx, &pod.metadata).await {
            self.expect.forget(&key);
            let text = (self.wording)(Deed::Delete, &key, &name, Some(&error));
            self.tell(owner, Note::warning("FailedDelete", text));
            return Err(error);
        }
        let text = (self.wording)(Deed::Delete, &key, &name, None);
        self.tell(owner, Note::normal("SuccessfulDelete", text));
        Ok(())
    }

    /// Tells something of an owner by an event.
    pub fn tell<O: Kind>(&self, owner: &O, note: Note) {
        self.ctx.events.record(self.component, owner, note);
    }
}

/// As upstream's PodControl words it.
fn plain(deed: Deed, _: &Key, pod: &str, failure: Option<&Error>) -> String {
    match (deed, failure) {
        (Deed::Create, None) => format!("Created pod: {pod}"),
        (Deed::Create, Some(error)) => format!("Error creating: {error}"),
        (Deed::Delete, None) => format!("Deleted pod: {pod}"),
        (Deed::Delete, Some(error)) => format!("Error deleting: {error}"),
    }
}
