//! StatefulSets: pods with names, places in an order, and claims of their own.
//!
//! [`core`] decides, [`identity`] says what a pod is called and has; this file claims, creates
//! and deletes.

pub mod core;
mod identity;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use peapod_api::selector::Selector;

use self::core::{Action, Observed, Version};
use crate::common::{Key, history, pods};
use crate::replicaset::owners_of;
use crate::shell::context::{Informers, term};
use crate::shell::events::Note;
use crate::shell::expectations::Expectations;
use crate::shell::revisions::{self, History};
use crate::shell::{
    Context, Controller, Error, Loop, Outcome, Result, Tasks, claims, informer, write,
};

/// Upstream's name of this loop, and of its events' source.
const NAME: &str = "statefulset";
const COMPONENT: &str = "statefulset-controller";

struct StatefulSets {
    ctx: Context,
    expect: Expectations,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.stateful_sets)
        .on(&ctx.informers.pods, move |change| {
            let orphan = |pod: &Pod| possible_owner(&informers, pod);
            owners_of(change, "StatefulSet", orphan)
        })
        .reads(&ctx.informers.revisions)
        .reads(&ctx.informers.claims)
        .run(
            tasks,
            StatefulSets {
                ctx: ctx.clone(),
                expect: Expectations::default(),
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
    let parsed = Selector::from_label_selector(&set.spec.selector);
    parsed.map_err(|fault| Error::Object {
        object: write::label::<StatefulSet>(&Key::of(set)),
        fault: format!("spec.selector: {fault}"),
    })
}

impl Controller for StatefulSets {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(set) = self.ctx.informers.stateful_sets.get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let pods = self.claimed(key, &set).await?;
        let waiting = self.unsettled(key, &pods);
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
        let done = self.carry_out(key, &set, plan.actions).await;
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
    async fn claimed(&self, key: &Key, set: &StatefulSet) -> Result<Vec<Arc<Pod>>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.ctx.informers.pods.indexed(&term::owned_by(uid));
        let orphans = self
            .ctx
            .informers
            .pods
            .indexed(&term::orphans_of(&key.namespace));
        let is_named = |pod: &Arc<Pod>| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            identity::ordinal(&key.name, name).is_some()
        };
        candidates.extend(orphans.into_iter().filter(is_named));
        claims::claim_all(&self.ctx, set, &selector(set)?, candidates).await
    }

    fn claims(&self, namespace: &str) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        let all = self.ctx.informers.claims.in_namespace(namespace);
        let named = all
            .into_iter()
            .filter_map(|claim| Some((claim.metadata.name.clone()?, claim)));
        named.collect()
    }

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

    async fn carry_out(&self, key: &Key, set: &StatefulSet, actions: Vec<Action>) -> Result<()> {
        for action in actions {
            match action {
                Action::Claims(claims, pod) => self.create_claims(set, claims, &pod).await?,
                Action::Create(pod) => self.create(key, set, &pod).await?,
                Action::Delete(pod) => self.delete(key, set, &pod).await?,
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
                Ok(_) => self.tell(
                    set,
                    Note::normal("SuccessfulCreate", format!("{what} success")),
                ),
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let message = format!("{what} failed error: {error}");
                    self.tell(set, Note::warning("FailedCreate", message));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn create(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let what = format!("create Pod {name} in StatefulSet {}", key.name);
        match write::create(&self.ctx, pod).await {
            Ok(created) => {
                let revision = informer::revision(&created);
                self.expect.written(key, revision, Instant::now());
                let message = format!("{what} successful");
                self.tell(set, Note::normal("SuccessfulCreate", message));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("{what} failed error: {error}");
                self.tell(set, Note::warning("FailedCreate", message));
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let what = format!("delete Pod {name} in StatefulSet {}", key.name);
        self.expect.deleted(key, uid, Instant::now());
        if let Err(error) = write::delete::<Pod>(&self.ctx, &pod.metadata).await {
            self.expect.forget(key);
            let message = format!("{what} failed error: {error}");
            self.tell(set, Note::warning("FailedDelete", message));
            return Err(error);
        }
        let message = format!("{what} successful");
        self.tell(set, Note::normal("SuccessfulDelete", message));
        Ok(())
    }

    fn tell(&self, set: &StatefulSet, note: Note) {
        self.ctx.events.record(COMPONENT, set, note);
    }
}
