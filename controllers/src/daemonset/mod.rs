//! DaemonSets: a pod on every node that fits.
//!
//! [`core`] decides, [`placement`] says which nodes fit; this file claims, creates and deletes.

pub mod core;
mod placement;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use peapod_api::selector::Selector;

use self::core::{Observed, Plan};
use crate::common::{Key, history, pods};
use crate::shell::backoff::Backoff;
use crate::shell::events::Note;
use crate::shell::pod_control::PodControl;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, claims, revisions, write};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "daemonset";
const COMPONENT: &str = "daemonset-controller";
/// How long a pod that ended is left, at first and at most, before it is made again.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(15 * 60);

struct DaemonSets {
    ctx: Context,
    pods: PodControl,
    /// By set and node.
    again: Backoff<(String, String)>,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let (informers, sets) = (ctx.informers.clone(), ctx.informers.clone());
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.daemon_sets)
        .on(&ctx.informers.pods, move |change| {
            let all = &informers.daemon_sets;
            let orphan = |pod: &Pod| claims::possible_owners(all, &pod.metadata, selector);
            claims::owners_of(change, "DaemonSet", orphan)
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
                pods: PodControl::new(ctx, COMPONENT),
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

fn selector(set: &DaemonSet) -> Result<Selector> {
    claims::selector_of(set, Selector::from_label_selector(&set.spec.selector))
}

impl Controller for DaemonSets {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(set) = self.ctx.informers.daemon_sets.get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let pods = self.pods.claim(&*set, &selector(&set)?, |_| true).await?;
        let waiting = self.pods.unsettled(key, &pods);
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
        let done = self.carry_out(&set, &hash, &plan).await;
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
    /// Says how long to wait for a pod that ended to be made again.
    async fn carry_out(
        &self,
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
                    self.pods.tell(set, ended(node, pod));
                    self.pods.delete(set, pod).await?;
                }
            }
        }
        let deleted = self.pods.delete_all(set, &plan.delete).await;
        let nodes = plan.create.iter();
        let pods: Vec<_> = nodes.map(|node| core::new_pod(set, hash, node)).collect();
        self.pods.create_all(set, pods).await?;
        deleted?;
        Ok(later)
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
