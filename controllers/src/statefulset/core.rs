//! What a StatefulSet does next. Pure.
//!
//! Pods have ordinals. With `OrderedReady` they are made one by one from the lowest, each when
//! those before it are available, and taken away one by one from the highest; with `Parallel`
//! all at once. An update replaces pods from the highest ordinal down to the partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity;
use crate::common::portion::{self, Round};
use crate::common::{history, pods};

/// The most pods created in one go.
const BURST: usize = 500;

/// A template of the set's history.
pub struct Version {
    /// The name of its revision.
    pub name: String,
    /// The template.
    pub template: PodTemplateSpec,
}

/// What a StatefulSet is seen to be.
pub struct Observed<'a> {
    /// The StatefulSet.
    pub set: &'a StatefulSet,
    /// The pods that it controls.
    pub pods: &'a [Arc<Pod>],
    /// The claims of its namespace, by name.
    pub claims: &'a BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The template that pods had before the update under way; the same as `update` when there
    /// is none.
    pub current: &'a Version,
    /// The template that pods should have.
    pub update: &'a Version,
    /// How often a hash was taken.
    pub collisions: i32,
    /// Whether the cache shows all that was written; else nothing is done.
    pub settled: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the claims that a pod lacks.
    Claims(Vec<PersistentVolumeClaim>, String),
    /// Create a pod.
    Create(Box<Pod>),
    /// Delete a pod.
    Delete(Arc<Pod>),
    /// Give a claim these owners.
    Own(Arc<PersistentVolumeClaim>, Vec<OwnerReference>),
}

/// What to do, the status, and when to look again without any change.
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The status.
    pub status: StatefulSetStatus,
    /// A pod becomes available by the mere passing of time.
    pub wake: Option<Duration>,
}

/// Decides.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let mut planner = Planner::new(observed, now);
    if observed.settled && observed.set.metadata.deletion_timestamp.is_none() {
        let _ = planner.replicas().and_then(|()| planner.condemned());
        if planner.may_update {
            planner.update();
        }
    }
    let soonest = observed
        .pods
        .iter()
        .filter_map(|pod| pods::available_in(pod, planner.min_ready, now))
        .min();
    Plan {
        actions: planner.actions,
        status: status(observed, now),
        wake: soonest,
    }
}

/// The order does not let anything more happen now.
struct Wait;

struct Planner<'a> {
    seen: &'a Observed<'a>,
    now: Timestamp,
    /// Pods that should be, by ordinal.
    wanted: BTreeMap<i32, &'a Arc<Pod>>,
    /// Pods beyond the count.
    surplus: BTreeMap<i32, &'a Arc<Pod>>,
    start: i32,
    end: i32,
    ordered: bool,
    min_ready: i32,
    /// Whether all that should be is there, so that an update may go on.
    may_update: bool,
    actions: Vec<Action>,
}

impl<'a> Planner<'a> {
    fn new(seen: &'a Observed<'a>, now: Timestamp) -> Self {
        let spec = &seen.set.spec;
        let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let end = start.saturating_add(spec.replicas.unwrap_or(1));
        let by_ordinal = seen
            .pods
            .iter()
            .filter_map(|pod| Some((ordinal(seen, pod)?, pod)));
        let (wanted, surplus) = by_ordinal.partition(|(ordinal, _)| (start..end).contains(ordinal));
        Self {
            seen,
            now,
            wanted,
            surplus,
            start,
            end,
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            may_update: false,
            actions: Vec::new(),
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready, self.now)
    }

    /// Makes what is missing, from the lowest ordinal.
    fn replicas(&mut self) -> Result<(), Wait> {
        for ordinal in self.start..self.end {
            if self.actions.len() >= BURST {
                return Err(Wait);
            }
            match self.wanted.get(&ordinal).copied() {
                None => {
                    self.create(ordinal);
                    self.in_order()?;
                }
                // Deleted, to be made again under its name.
                Some(pod) if pods::is_finished(pod) => {
                    if !pods::is_terminating(pod) {
                        self.actions.push(Action::Delete(pod.clone()));
                    }
                    self.in_order()?;
                }
                Some(pod) => {
                    if pods::phase(pod) == "Pending" && !pods::is_terminating(pod) {
                        self.claims(ordinal);
                    }
                    self.own(pod, ordinal, false);
                    if !is_healthy(pod) || !self.is_available(pod) {
                        self.in_order()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the turn when things are to be done one by one.
    fn in_order(&self) -> Result<(), Wait> {
        match self.ordered {
            true => Err(Wait),
            false => Ok(()),
        }
    }

    fn create(&mut self, ordinal: i32) {
        let version = self.version(ordinal);
        let pod = identity::new_pod(self.seen.set, &version.template, &version.name, ordinal);
        self.claims(ordinal);
        self.actions.push(Action::Create(Box::new(pod)));
    }

    fn claims(&mut self, ordinal: i32) {
        let mut missing = identity::new_claims(self.seen.set, ordinal);
        missing.retain(|claim| {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            !self.seen.claims.contains_key(name)
        });
        if !missing.is_empty() {
            let set = self.seen.set.metadata.name.as_deref().unwrap_or_default();
            let pod = format!("{set}-{ordinal}");
            self.actions.push(Action::Claims(missing, pod));
        }
    }

    fn own(&mut self, pod: &Pod, ordinal: i32, condemned: bool) {
        for name in identity::claim_names(self.seen.set, ordinal) {
            let Some(claim) = self.seen.claims.get(&name) else {
                continue;
            };
            let owners = identity::claim_owners(self.seen.set, pod, claim, condemned);
            if let Some(owners) = owners {
                self.actions.push(Action::Own(claim.clone(), owners));
            }
        }
    }

    /// The template of a pod that is missing: below the partition the old one.
    fn version(&self, ordinal: i32) -> &'a Version {
        let strategy = self.seen.set.spec.update_strategy.as_ref();
        let is_rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let old_until = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => {
                let status = self.seen.set.status.as_ref();
                status
                    .and_then(|status| status.current_replicas)
                    .unwrap_or(0)
            }
        };
        match is_rolling && ordinal < self.start.saturating_add(old_until) {
            true => self.seen.current,
            false => self.seen.update,
        }
    }

    /// Takes away what is too much, from the highest ordinal.
    fn condemned(&mut self) -> Result<(), Wait> {
        let all = self.wanted.iter().chain(&self.surplus);
        let mut unhealthy: Vec<i32> = all
            .filter(|(_, pod)| !is_healthy(pod))
            .map(|(ordinal, _)| *ordinal)
            .collect();
        unhealthy.sort_unstable();
        let surplus: Vec<_> = self
            .surplus
            .iter()
            .rev()
            .map(|(o, pod)| (*o, *pod))
            .collect();
        for (ordinal, pod) in surplus {
            if pods::is_terminating(pod) {
                self.in_order()?;
                continue;
            }
            // What ails may go before the others ail too, the first of them.
            let first = unhealthy.first() == Some(&ordinal);
            if (!is_healthy(pod) || !self.is_available(pod)) && !first {
                self.in_order()?;
            }
            self.own(pod, ordinal, true);
            self.actions.push(Action::Delete(pod.clone()));
            self.in_order()?;
        }
        self.may_update = true;
        Ok(())
    }

    /// Replaces old pods from the highest ordinal, as many at a time as may be unavailable.
    fn update(&mut self) {
        let strategy = self.seen.set.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let count = self.end.saturating_sub(self.start);
        let most = most.map_or(1, |most| portion::of(most, count, Round::Down).max(1));
        let mut unavailable = 0;
        let candidates = self.wanted.range(self.start.saturating_add(partition)..);
        for (_, pod) in candidates.rev() {
            if unavailable >= most {
                return;
            }
            let is_old = history::carried_by(pod) != Some(self.seen.update.name.as_str());
            if is_old && !pods::is_terminating(pod) {
                let again = Action::Delete((*pod).clone());
                if !self.actions.contains(&again) {
                    self.actions.push(again);
                }
                unavailable += 1;
            } else if !is_healthy(pod) || !self.is_available(pod) {
                unavailable += 1;
            }
        }
    }
}

fn ordinal(seen: &Observed<'_>, pod: &Pod) -> Option<i32> {
    let name = |meta: &kube::api::ObjectMeta| meta.name.clone().unwrap_or_default();
    identity::ordinal(&name(&seen.set.metadata), &name(&pod.metadata))
}

/// Running, ready and not about to go.
fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !pods::is_terminating(pod)
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

fn status(seen: &Observed<'_>, now: Timestamp) -> StatefulSetStatus {
    let spec = &seen.set.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let count = |test: &dyn Fn(&Pod) -> bool| -> i32 {
        let number = seen.pods.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let carries = |pod: &Pod, version: &Version| {
        !pods::is_terminating(pod) && history::carried_by(pod) == Some(version.name.as_str())
    };
    let replicas = count(&|_| true);
    let ready = count(&is_running_and_ready);
    let available =
        count(&|pod| is_running_and_ready(pod) && pods::is_available(pod, min_ready, now));
    let updated = count(&|pod| carries(pod, seen.update));
    let mut current = count(&|pod| carries(pod, seen.current));
    let mut current_name = &seen.current.name;
    let strategy = spec.update_strategy.as_ref();
    let is_rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    let wanted = spec.replicas.unwrap_or(1);
    if is_rolling
        && [updated, ready, replicas]
            .iter()
            .all(|count| *count == wanted)
    {
        (current, current_name) = (updated, &seen.update.name);
    }
    // Upstream leaves zeros out, but for these two.
    let some = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(current),
        updated_replicas: some(updated),
        current_revision: Some(current_name.clone()),
        update_revision: Some(seen.update.name.clone()),
        collision_count: Some(seen.collisions),
        observed_generation: seen.set.metadata.generation,
        conditions: seen
            .set
            .status
            .as_ref()
            .and_then(|old| old.conditions.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    fn told(action: &Action) -> String {
        let name = |meta: &kube::api::ObjectMeta| meta.name.clone().unwrap_or_default();
        match action {
            Action::Claims(claims, pod) => {
                let names = claims.iter().map(|claim| name(&claim.metadata));
                format!("claim {} for {pod}", names.collect::<Vec<_>>().join(" "))
            }
            Action::Create(pod) => {
                let revision = history::carried_by(pod).unwrap_or_default();
                format!("create {} of {revision}", name(&pod.metadata))
            }
            Action::Delete(pod) => format!("delete {}", name(&pod.metadata)),
            Action::Own(claim, owners) => {
                let owners = owners
                    .iter()
                    .map(|owner| format!("{}/{}", owner.kind, owner.name));
                let owners = owners.collect::<Vec<_>>().join(" ");
                format!("own {} by [{owners}]", name(&claim.metadata))
            }
        }
    }

    /// Reads a StatefulSet, its pods and claims; `# current: NAME` names the old revision.
    fn run(input: &str) -> String {
        let now = now(input);
        let sets: Vec<StatefulSet> = objects(input, "StatefulSet");
        let pods: Vec<_> = objects::<Pod>(input, "Pod")
            .into_iter()
            .map(Arc::new)
            .collect();
        let claims = objects::<PersistentVolumeClaim>(input, "PersistentVolumeClaim");
        let claims = claims
            .into_iter()
            .map(|claim| (claim.metadata.name.clone().unwrap(), Arc::new(claim)));
        let version = |name: &str| Version {
            name: name.to_owned(),
            template: sets[0].spec.template.clone(),
        };
        let current = input
            .lines()
            .find_map(|line| line.strip_prefix("# current: "));
        let observed = Observed {
            set: &sets[0],
            pods: &pods,
            claims: &claims.collect(),
            current: &version(current.unwrap_or("new")),
            update: &version("new"),
            collisions: 0,
            settled: !input.contains("# cache behind"),
        };
        let plan = plan(&observed, now);
        let mut lines: Vec<String> = plan.actions.iter().map(told).collect();
        if lines.is_empty() {
            lines.push("keep".to_owned());
        }
        lines.extend(plan.wake.map(|wait| format!("again in {wait:?}")));
        lines.push(serde_json::to_string(&plan.status).unwrap());
        lines.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("statefulset", run);
    }
}
