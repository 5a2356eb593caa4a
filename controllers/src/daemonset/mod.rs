//! DaemonSets: a pod on every node that fits.
//!
//! [`core`] decides, [`placement`] says which nodes fit; this file claims, creates and deletes.

pub mod core;
mod placement;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use peapod_api::selector::Selector;

use self::core::{Observed, Plan};
use crate::common::{Key, history, pods};
use crate::replicaset::owners_of;
use crate::shell::backoff::Backoff;
use crate::shell::context::{Informers, term};
use crate::shell::events::Note;
use crate::shell::expectations::Expectations;
use crate::shell::{
    Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, informer, revisions, write,
};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "daemonset";
const COMPONENT: &str = "daemonset-controller";
/// How long a pod that ended is left, at first and at most, before it is made again.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(15 * 60);

struct DaemonSets {
    ctx: Context,
    expect: Expectations,
    /// By set and node.
    again: Backoff<(String, String)>,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let (informers, sets) = (ctx.informers.clone(), ctx.informers.clone());
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.daemon_sets)
        .on(&ctx.informers.pods, move |change| {
            let orphan = |pod: &Pod| possible_owners(&informers, pod);
            owners_of(change, "DaemonSet", orphan)
        })
        .on(&ctx.informers.nodes, move |change| {
            let matters = facts(change.old.as_deref()) != facts(change.new.as_deref());
            let all = sets.daemon_sets.all();
            let woken = all.iter().filter(|_| matters);
            woken.map(|set| Key::of(&**set)).collect::<Vec<_>>()
        })
        .reads(&ctx.informers.revisions)
        .run(
            tasks,
            DaemonSets {
                ctx: ctx.clone(),
                expect: Expectations::default(),
                again: Backoff::new(AGAIN_FIRST, AGAIN_LAST),
            },
        );
}

/// What of a node decides whether it gets pods; heartbeats are no news.
fn facts(node: Option<&Node>) -> Option<impl PartialEq> {
    let node = node?;
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.clone());
    Some((node.metadata.labels.clone(), taints))
}

fn possible_owners(informers: &Informers, pod: &Pod) -> Vec<Key> {
    let Some(labels) = &pod.metadata.labels else {
        return Vec::new();
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let sets = informers.daemon_sets.in_namespace(namespace);
    let matching = sets
        .iter()
        .filter(|set| selector(set).is_ok_and(|s| s.matches(labels)));
    matching.map(|set| Key::of(&**set)).collect()
}

fn selector(set: &DaemonSet) -> Result<Selector> {
    let parsed = Selector::from_label_selector(&set.spec.selector);
    parsed.map_err(|fault| Error::Object {
        object: write::label::<DaemonSet>(&Key::of(set)),
        fault: format!("spec.selector: {fault}"),
    })
}

impl Controller for DaemonSets {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(set) = self.ctx.informers.daemon_sets.get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.ctx.informers.pods.indexed(&term::owned_by(uid));
        candidates.extend(
            self.ctx
                .informers
                .pods
                .indexed(&term::orphans_of(&key.namespace)),
        );
        let pods = claims::claim_all(&self.ctx, &*set, &selector(&set)?, candidates).await?;
        let waiting = self.unsettled(key, &pods);
        let status = set.status.as_ref();
        let collisions = status.and_then(|s| s.collision_count).unwrap_or(0);
        let history = revisions::sync(&self.ctx, &*set, &set.spec.template, collisions).await?;
        let hash = history::hash(&history.newest).to_owned();
        let observed = Observed {
            set: &set,
            pods: &pods,
            nodes: &self.ctx.informers.nodes.all(),
            hash: &hash,
            collisions: history.collisions,
            settled: waiting.is_none(),
        };
        let plan = core::plan(&observed, Timestamp::now());
        let done = self.carry_out(key, &set, &hash, &plan).await;
        write::status(&self.ctx, &*set, status, &plan.status).await?;
        let later = done?;
        let carried = history::carried(&pods);
        let is_used = |one: &ControllerRevision| {
            history::hash(one) == hash || carried.contains(history::hash(one))
        };
        let limit = set.spec.revision_history_limit;
        revisions::truncate(&self.ctx, &history, is_used, limit).await?;
        let waits = plan.wake.into_iter().chain(waiting).chain(later);
        Ok(Outcome::maybe(waits.min()))
    }
}

impl DaemonSets {
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

    /// Says how long to wait for a pod that ended to be made again.
    async fn carry_out(
        &self,
        key: &Key,
        set: &DaemonSet,
        hash: &str,
        plan: &Plan,
    ) -> Result<Option<Duration>> {
        let mut later = None;
        let uid = set.metadata.uid.clone().unwrap_or_default();
        for (node, pod) in &plan.ended {
            let place = (uid.clone(), node.clone());
            match self.again.next(&place, Instant::now()) {
                Some(wait) => {
                    later = Some(later.map_or(wait, |soonest: Duration| soonest.min(wait)))
                }
                None => {
                    self.tell(set, ended(node, pod));
                    self.delete(key, set, pod).await?;
                }
            }
        }
        let deletions = plan.delete.iter().map(|pod| self.delete(key, set, pod));
        let deleted: Result<()> = join_all(deletions).await.into_iter().collect();
        self.create(key, set, hash, &plan.create).await?;
        deleted?;
        Ok(later)
    }

    /// Creates in batches of 1, 2, 4, ... and stops at the first batch with a failure, so that
    /// a template that the API refuses is refused once, not a thousand times.
    async fn create(&self, key: &Key, set: &DaemonSet, hash: &str, nodes: &[String]) -> Result<()> {
        let (mut left, mut batch) = (nodes, 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(left.len().min(batch));
            let creations = now.iter().map(|node| self.create_one(key, set, hash, node));
            let created: Result<()> = join_all(creations).await.into_iter().collect();
            created?;
            (left, batch) = (rest, batch * 2);
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, set: &DaemonSet, hash: &str, node: &str) -> Result<()> {
        match write::create(&self.ctx, &core::new_pod(set, hash, node)).await {
            Ok(created) => {
                let revision = informer::revision(&created);
                self.expect.written(key, revision, Instant::now());
                let name = created.metadata.name.unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.tell(set, Note::normal("SuccessfulCreate", message));
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

    async fn delete(&self, key: &Key, set: &DaemonSet, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.expect.deleted(key, uid, Instant::now());
        if let Err(error) = write::delete::<Pod>(&self.ctx, &pod.metadata).await {
            self.expect.forget(key);
            let message = format!("Error deleting: {error}");
            self.tell(set, Note::warning("FailedDelete", message));
            return Err(error);
        }
        let message = format!("Deleted pod: {name}");
        self.tell(set, Note::normal("SuccessfulDelete", message));
        Ok(())
    }

    fn tell(&self, set: &DaemonSet, note: Note) {
        self.ctx.events.record(COMPONENT, set, note);
    }
}

fn ended(node: &str, pod: &Pod) -> Note {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match pods::phase(pod) {
        "Succeeded" => Note::normal(
            "SucceededDaemonPod",
            format!(
                "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
            ),
        ),
        _ => Note::warning(
            "FailedDaemonPod",
            format!(
                "Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"
            ),
        ),
    }
}
