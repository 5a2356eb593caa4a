//! StatefulSets: pods with names, places in an order, and claims of their own.
//!
//! [`core`] decides, [`identity`] says what a pod is called and has; this file claims, creates
//! and deletes.

pub mod core;
mod identity;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use peapod_api::selector::Selector;

use self::core::{Action, Observed, Version};
use crate::common::{Key, history};
use crate::shell::context::Informers;
use crate::shell::events::Note;
use crate::shell::pod_control::{Deed, PodControl};
use crate::shell::revisions::{self, History};
use crate::shell::{Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, write};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "statefulset";
const COMPONENT: &str = "statefulset-controller";

struct StatefulSets {
    ctx: Context,
    pods: PodControl,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.stateful_sets)
        .on(&ctx.informers.pods, move |change| {
            let orphan = |pod: &Pod| possible_owner(&informers, pod);
            claims::owners_of(change, "StatefulSet", orphan)
        })
        .reads(&ctx.informers.revisions)
        .reads(&ctx.informers.claims)
        .run(
            tasks,
            StatefulSets {
                ctx: ctx.clone(),
                pods: PodControl::worded(ctx, COMPONENT, wording),
            },
        );
}

/// The set whose name a pod without a controller bears.
fn possible_owner(informers: &Informers, pod: &Pod) -> Vec<Key> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some((set, _)) = name.rsplit_once('-') else {
        return Vec::new();
    };
    let key = Key::new(namespace, set);
    let found = informers.stateful_sets.get(&key);
    found.map(|_| key).into_iter().collect()
}

fn selector(set: &StatefulSet) -> Result<Selector> {
    claims::selector_of(set, Selector::from_label_selector(&set.spec.selector))
}

/// As upstream words the events of a set.
fn wording(deed: Deed, set: &Key, pod: &str, failure: Option<&Error>) -> String {
    let doing = match deed {
        Deed::Create => "create",
        Deed::Delete => "delete",
    };
    let what = format!("{doing} Pod {pod} in StatefulSet {}", set.name);
    match failure {
        None => format!("{what} successful"),
        Some(error) => format!("{what} failed error: {error}"),
    }
}

impl Controller for StatefulSets {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(set) = self.ctx.informers.stateful_sets.get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let is_named = |pod: &Pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            identity::ordinal(&key.name, name).is_some()
        };
        let pods = self.pods.claim(&*set, &selector(&set)?, is_named).await?;
        let waiting = self.pods.unsettled(key, &pods);
        let status = set.status.as_ref();
        let collisions = status.and_then(|s| s.collision_count).unwrap_or(0);
        let history = revisions::sync(&self.ctx, &*set, &set.spec.template, collisions).await?;
        let update = Version {
            name: history::name(&history.newest).to_owned(),
            template: set.spec.template.clone(),
        };
        let current = current(&set, &history);
        let observed = Observed {
            set: &set,
            pods: &pods,
            claims: &self.claims(&key.namespace),
            current: current.as_ref().unwrap_or(&update),
            update: &update,
            collisions: history.collisions,
            settled: waiting.is_none(),
        };
        let plan = core::plan(&observed, Timestamp::now());
        let done = self.carry_out(&set, plan.actions).await;
        write::status(&self.ctx, &*set, status, &plan.status).await?;
        done?;
        let carried = history::carried(&pods);
        let in_status = [&plan.status.current_revision, &plan.status.update_revision];
        let is_used = |one: &ControllerRevision| {
            let name = history::name(one);
            carried.contains(name) || in_status.iter().any(|n| n.as_deref() == Some(name))
        };
        let limit = set.spec.revision_history_limit;
        revisions::truncate(&self.ctx, &history, is_used, limit).await?;
        Ok(Outcome::maybe(plan.wake.into_iter().chain(waiting).min()))
    }
}

/// The revision that the status names as the current one, when it is another than the newest
/// and still known.
fn current(set: &StatefulSet, history: &History) -> Option<Version> {
    let name = set.status.as_ref()?.current_revision.as_deref()?;
    let found = history.all.iter().find(|one| history::name(one) == name)?;
    Some(Version {
        name: name.to_owned(),
        template: history::template_of(found)?,
    })
}

impl StatefulSets {
    fn claims(&self, namespace: &str) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        let all = self.ctx.informers.claims.in_namespace(namespace);
        let named = all
            .into_iter()
            .filter_map(|claim| Some((claim.metadata.name.clone()?, claim)));
        named.collect()
    }

    async fn carry_out(&self, set: &StatefulSet, actions: Vec<Action>) -> Result<()> {
        for action in actions {
            match action {
                Action::Claims(claims, pod) => self.create_claims(set, claims, &pod).await?,
                Action::Create(pod) => self.pods.create(set, &pod).await?,
                Action::Delete(pod) => self.pods.delete(set, &pod).await?,
                Action::Own(claim, owners) => {
                    let mut new = (*claim).clone();
                    new.metadata.owner_references = Some(owners);
                    write::update(&self.ctx, &*claim, &new).await?;
                }
            }
        }
        Ok(())
    }

    async fn create_claims(
        &self,
        set: &StatefulSet,
        claims: Vec<PersistentVolumeClaim>,
        pod: &str,
    ) -> Result<()> {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        for claim in claims {
            let name = claim.metadata.name.clone().unwrap_or_default();
            let what = format!("create Claim {name} Pod {pod} in StatefulSet {set_name}");
            match write::create(&self.ctx, &claim).await {
                Ok(_) => self.pods.tell(
                    set,
                    Note::normal("SuccessfulCreate", format!("{what} success")),
                ),
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let message = format!("{what} failed error: {error}");
                    self.pods.tell(set, Note::warning("FailedCreate", message));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
