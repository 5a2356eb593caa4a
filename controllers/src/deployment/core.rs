//! What a Deployment does next. Pure: [`plan`] reads it and its ReplicaSets, and says what
//! they should be.
//!
//! One plan is one small step (grow the new ReplicaSet, or shrink old ones); the change it
//! makes wakes the loop for the next.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use kube::api::ObjectMeta;
use peapod_api::labels::POD_TEMPLATE_HASH;

use super::limits::{self, Limits};
use super::status::{self, Builder};
use super::{revision, template};
use crate::common::owner;
use crate::shell::events::Note;

/// What a Deployment is seen to be.
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The ReplicaSets that it controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The uids of the ReplicaSets that have pods which have not run to their end.
    pub with_pods: Vec<String>,
}

/// What should be done, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// A ReplicaSet to create.
    pub create: Option<ReplicaSet>,
    /// ReplicaSets to change, as they are and as they should be.
    pub update: Vec<(Arc<ReplicaSet>, ReplicaSet)>,
    /// ReplicaSets to delete.
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment's own revision annotation, when it changes.
    pub revision: Option<String>,
    /// What to tell people, once the rest is done.
    pub notes: Vec<Note>,
    /// The status.
    pub status: DeploymentStatus,
    /// When to look again though nothing changes.
    pub wake: Option<Duration>,
}

/// Decides the next step.
pub fn plan(observed: Observed<'_>, now: Timestamp) -> Plan {
    let mut rollout = Rollout::new(observed, now);
    let deployment = rollout.deployment;
    let status = if deployment.metadata.deletion_timestamp.is_some() {
        rollout.plain_status()
    } else if deployment.spec.paused == Some(true) || rollout.is_scaling() {
        rollout.sync_revision();
        rollout.scale();
        if deployment.spec.paused == Some(true) {
            rollout.clean_up();
        }
        rollout.plain_status()
    } else {
        match limits::is_recreate(deployment) {
            true => rollout.recreate(),
            false => rollout.roll(),
        }
        let status = rollout.rollout_status();
        if status::is_complete(deployment, &status) {
            rollout.clean_up();
        }
        status
    };
    rollout.finish(status)
}

/// A plan under construction, with the ReplicaSets as the plan so far makes them.
struct Rollout<'a> {
    deployment: &'a Deployment,
    limits: Limits,
    /// Oldest first.
    sets: Vec<Arc<ReplicaSet>>,
    new: Option<String>,
    with_pods: Vec<String>,
    progress: Option<Builder<'a>>,
    plan: Plan,
    now: Timestamp,
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

impl<'a> Rollout<'a> {
    fn new(observed: Observed<'a>, now: Timestamp) -> Self {
        let mut sets = observed.sets;
        sets.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.metadata.name.clone())
        });
        Self {
            deployment: observed.deployment,
            limits: Limits::of(observed.deployment),
            new: revision::find_new(observed.deployment, &sets).map(str::to_owned),
            sets,
            with_pods: observed.with_pods,
            progress: Some(Builder::new(observed.deployment, now)),
            plan: Plan::default(),
            now,
        }
    }

    fn is_new(&self, set: &ReplicaSet) -> bool {
        self.new.as_deref() == Some(name(set))
    }

    fn new_set(&self) -> Option<&Arc<ReplicaSet>> {
        self.sets.iter().find(|set| self.is_new(set))
    }

    fn old_sets(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.sets.iter().filter(|set| !self.is_new(set))
    }

    fn total(&self) -> i32 {
        limits::total(self.sets.iter().map(Arc::as_ref))
    }

    /// Whether the Deployment was scaled since its active ReplicaSets were last sized.
    fn is_scaling(&self) -> bool {
        let active = self.sets.iter().filter(|set| limits::size(set) > 0);
        active
            .filter_map(|set| revision::desired_replicas(set))
            .any(|desired| desired != self.limits.replicas)
    }

    /// Numbers the new ReplicaSet if it is there; whether that changed it.
    fn sync_revision(&mut self) -> bool {
        let next = self.next_revision();
        let Some(new) = self.new_set().cloned() else {
            return false;
        };
        let mut changed = ReplicaSet::clone(&new);
        revision::annotate_new(&mut changed, self.deployment, next);
        changed.spec.min_ready_seconds = self.deployment.spec.min_ready_seconds;
        self.set_revision(&changed);
        if changed != *new {
            self.replace(&new, changed);
            return true;
        }
        if let Some(progress) = &mut self.progress {
            progress.found(name(&new));
        }
        false
    }

    fn next_revision(&self) -> i64 {
        let highest = self.old_sets().map(|set| revision::of(set)).max();
        highest.unwrap_or(0) + 1
    }

    /// Copies the new ReplicaSet's number to the Deployment.
    fn set_revision(&mut self, set: &ReplicaSet) {
        let of = |annotations: &Option<std::collections::BTreeMap<String, String>>| {
            annotations.as_ref()?.get(revision::REVISION).cloned()
        };
        let number = of(&set.metadata.annotations);
        if number != of(&self.deployment.metadata.annotations) {
            self.plan.revision = number;
        }
    }

    /// Makes a ReplicaSet of the current template.
    fn create_new(&mut self) {
        let set = self.fresh_set();
        self.set_revision(&set);
        if let Some(progress) = &mut self.progress {
            progress.created(name(&set));
        }
        self.note_scaled(&set, 0);
        self.new = set.metadata.name.clone();
        self.sets.push(Arc::new(set.clone()));
        self.plan.create = Some(set);
    }

    fn fresh_set(&self) -> ReplicaSet {
        let spec = &self.deployment.spec;
        let status = self.deployment.status.as_ref();
        let collisions = status
            .and_then(|status| status.collision_count)
            .unwrap_or(0);
        let hash = template::hash(&spec.template, collisions);
        let label = |labels: &mut std::collections::BTreeMap<String, String>| {
            labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        };
        let mut template = spec.template.clone();
        let labels = &mut template.metadata.get_or_insert_default().labels;
        label(labels.get_or_insert_default());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        label(selector.match_labels.get_or_insert_default());
        let size = match limits::is_recreate(self.deployment) {
            true => self.limits.replicas,
            false => self.limits.grown(0, self.total()),
        };
        let owner = self.deployment.metadata.name.as_deref().unwrap_or_default();
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                namespace: self.deployment.metadata.namespace.clone(),
                name: Some(format!("{owner}-{hash}")),
                labels,
                owner_references: Some(vec![owner::controller_reference(self.deployment)]),
                ..Default::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        revision::annotate_new(&mut set, self.deployment, self.next_revision());
        revision::note_size(&mut set, self.limits);
        set
    }

    /// Puts a changed ReplicaSet in its place, in the plan too.
    fn replace(&mut self, old: &Arc<ReplicaSet>, changed: ReplicaSet) {
        let place = self.sets.iter_mut().find(|set| name(set) == name(&changed));
        if let Some(place) = place {
            *place = Arc::new(changed.clone());
        }
        let planned = self.plan.update.iter_mut();
        match planned
            .map(|(_, new)| new)
            .find(|new| name(new) == name(&changed))
        {
            Some(planned) => *planned = changed,
            None => self.plan.update.push((old.clone(), changed)),
        }
    }

    /// Sizes a ReplicaSet; whether that changed its size.
    fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> bool {
        let mut changed = ReplicaSet::clone(set);
        changed.spec.replicas = Some(size);
        revision::note_size(&mut changed, self.limits);
        let before = limits::size(set);
        if changed != **set {
            self.note_scaled(&changed, before);
            self.replace(set, changed);
        }
        before != size
    }

    fn note_scaled(&mut self, set: &ReplicaSet, before: i32) {
        let size = limits::size(set);
        if size == before {
            return;
        }
        let way = if size > before { "up" } else { "down" };
        let message = format!(
            "Scaled {way} replica set {} from {before} to {size}",
            name(set)
        );
        self.plan
            .notes
            .push(Note::normal("ScalingReplicaSet", message));
    }

    // === the strategies ===

    /// One step of a rolling update.
    fn roll(&mut self) {
        if self.sync_revision() {
            return;
        }
        if self.new.is_none() {
            self.create_new();
            return;
        }
        if !self.size_new() {
            self.shrink_old();
        }
    }

    /// Brings the new ReplicaSet towards its goal; whether its size changed.
    fn size_new(&mut self) -> bool {
        let Some(new) = self.new_set().cloned() else {
            return false;
        };
        let size = limits::size(&new);
        let goal = match size > self.limits.replicas {
            true => self.limits.replicas,
            false => self.limits.grown(size, self.total()),
        };
        goal != size && self.resize(&new, goal)
    }

    /// Shrinks old ReplicaSets as far as availability allows: first by what is not available
    /// anyway, then by what the available ones leave above the floor.
    fn shrink_old(&mut self) {
        if limits::total(self.old_sets().map(Arc::as_ref)) == 0 {
            return;
        }
        let unavailable = self.new_set().map_or(0, |new| {
            limits::size(new) - limits::available([new.as_ref()])
        });
        let may_go = self.total() - self.limits.floor() - unavailable;
        if may_go <= 0 {
            return;
        }
        self.shrink_by(may_go, |set| limits::size(set) - limits::available([set]));
        let available = limits::available(self.sets.iter().map(Arc::as_ref));
        self.shrink_by(available - self.limits.floor(), limits::size);
    }

    /// Takes `count` pods from the old ReplicaSets, oldest first, from each at most `spare`.
    fn shrink_by(&mut self, count: i32, spare: fn(&ReplicaSet) -> i32) {
        let mut left = count;
        let old: Vec<_> = self.old_sets().cloned().collect();
        for set in old {
            let take = spare(&set).min(limits::size(&set)).min(left);
            if take > 0 {
                self.resize(&set, limits::size(&set) - take);
                left -= take;
            }
        }
    }

    /// One step of a recreation: all old pods go, and only then new ones come.
    fn recreate(&mut self) {
        if self.sync_revision() {
            return;
        }
        let old: Vec<_> = self.old_sets().cloned().collect();
        let mut shrunk = false;
        for set in old.iter().filter(|set| limits::size(set) > 0) {
            shrunk |= self.resize(set, 0);
        }
        if shrunk || self.old_pods_remain() {
            return;
        }
        match self.new_set().cloned() {
            None => self.create_new(),
            Some(new) => {
                self.resize(&new, self.limits.replicas);
            }
        }
    }

    fn old_pods_remain(&self) -> bool {
        let new = self.new_set().and_then(|new| new.metadata.uid.clone());
        let counted = |set: &Arc<ReplicaSet>| set.status.as_ref().is_some_and(|s| s.replicas > 0);
        self.old_sets().any(counted) || self.with_pods.iter().any(|uid| Some(uid) != new.as_ref())
    }

    // === scaling ===

    /// Sizes the ReplicaSets for a changed number of replicas, outside of a rollout or in one.
    fn scale(&mut self) {
        let active: Vec<_> = self
            .sets
            .iter()
            .filter(|set| limits::size(set) > 0)
            .cloned()
            .collect();
        let only = match active.as_slice() {
            [] => self.new_set().or(self.sets.last()).cloned(),
            [only] => Some(only.clone()),
            _ => None,
        };
        if let Some(only) = only {
            self.resize(&only, self.limits.replicas);
        } else if self.is_saturated() {
            let old: Vec<_> = self.old_sets().cloned().collect();
            for set in old.iter().filter(|set| limits::size(set) > 0) {
                self.resize(set, 0);
            }
        } else if !limits::is_recreate(self.deployment) && !active.is_empty() {
            self.scale_in_proportion(active);
        }
    }

    /// Whether the new ReplicaSet alone has all replicas, available.
    fn is_saturated(&self) -> bool {
        let replicas = self.limits.replicas;
        self.new_set().is_some_and(|new| {
            limits::size(new) == replicas
                && revision::desired_replicas(new) == Some(replicas)
                && limits::available([new.as_ref()]) == replicas
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<Arc<ReplicaSet>>) {
        let grows = self.limits.replicas > 0 && self.limits.ceiling() > self.total();
        // Oldest first so far; of equal size the newer goes first when growing.
        if grows {
            active.reverse();
        }
        active.sort_by_key(|set| Reverse(limits::size(set)));
        let status = self.deployment.status.as_ref();
        let replicas = status.and_then(|status| status.replicas).unwrap_or(0);
        let borrowed: Vec<&ReplicaSet> = active.iter().map(Arc::as_ref).collect();
        let sizes = limits::proportional(&borrowed, self.limits, replicas);
        for (set, size) in active.iter().zip(sizes) {
            self.resize(set, size);
        }
    }

    // === the end ===

    fn clean_up(&mut self) {
        self.plan.delete = revision::beyond_history(self.deployment, self.old_sets());
    }

    fn builder(&mut self) -> Builder<'a> {
        let taken = self.progress.take();
        taken.unwrap_or_else(|| Builder::new(self.deployment, self.now))
    }

    fn plain_status(&mut self) -> DeploymentStatus {
        let builder = self.builder();
        builder.plain(&self.sets, self.new_set().map(Arc::as_ref))
    }

    fn rollout_status(&mut self) -> DeploymentStatus {
        let builder = self.builder();
        builder.rollout(&self.sets, self.new_set().map(Arc::as_ref))
    }

    fn finish(mut self, status: DeploymentStatus) -> Plan {
        self.plan.wake = status::next_look(self.deployment, &status, self.now);
        self.plan.status = status;
        self.plan
    }
}
