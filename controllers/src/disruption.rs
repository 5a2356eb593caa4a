//! PodDisruptionBudgets: how many pods an eviction may take.
//!
//! The core is [`status`]. The eviction subresource of the API takes from what this says, and
//! notes the pods that it took in `disruptedPods` until they are seen to go.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use peapod_api::selector::Selector;

use crate::common::portion::{self, Round};
use crate::common::{Key, owner, pods};
use crate::shell::context::Informers;
use crate::shell::discovery::discover;
use crate::shell::error::Doing;
use crate::shell::{Change, Context, Controller, Error, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "disruption";
const ALLOWED: &str = "DisruptionAllowed";
/// Seconds after which a pod that was to be evicted, and still stands, counts again.
const EVICTION_SECS: i64 = 120;

struct Budgets(Context);

/// Wires the loop; its keys are budgets.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.budgets)
        .on(&ctx.informers.pods, move |change| {
            budgets_of(&informers, change)
        })
        .reads(&ctx.informers.replica_sets)
        .reads(&ctx.informers.deployments)
        .run(tasks, Budgets(ctx.clone()));
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // Validation refuses a selector that cannot be read; until it is mended it selects nothing.
    let read = selector.map(Selector::from_label_selector);
    read.and_then(Result::ok).unwrap_or(Selector::nothing())
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    selector(budget).matches(&pod.metadata.labels.clone().unwrap_or_default())
}

/// The budgets that a changed pod counts for, before or after.
fn budgets_of(informers: &Informers, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && old.metadata.labels == new.metadata.labels
        && (pods::is_ready(old), pods::is_active(old))
            == (pods::is_ready(new), pods::is_active(new))
    {
        return Vec::new();
    }
    let budgets = informers.budgets.in_namespace(&change.key.namespace);
    let counting = budgets
        .iter()
        .filter(|budget| change.both().any(|pod| selects(budget, pod)));
    counting.map(|budget| Key::of(&**budget)).collect()
}

/// Whether a budget is reckoned from what the pods' controllers are asked to run, rather than
/// from the pods there are.
fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    let minimum = spec.and_then(|spec| spec.min_available.as_ref());
    let maximum = spec.and_then(|spec| spec.max_unavailable.as_ref());
    maximum.is_some() || minimum.is_some_and(portion::is_percentage)
}

/// The status of a budget, and when it changes by the mere passing of time. `scale` is what the
/// pods' controllers are asked to run, needed when [`needs_scale`] says so.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let spec = budget.spec.clone().unwrap_or_default();
    let old = budget.status.clone().unwrap_or_default();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    let mut wake = None;
    disrupted.retain(|name, since| {
        let named = |pod: &&Arc<Pod>| pod.metadata.name.as_ref() == Some(name);
        let stands = pods
            .iter()
            .find(named)
            .is_some_and(|pod| !pods::is_terminating(pod));
        let left = pods::until(since.0, EVICTION_SECS, now).filter(|_| stands);
        wake = wake.into_iter().chain(left).min();
        left.is_some()
    });
    let healthy = pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_active(pod) && pods::is_ready(pod) && !disrupted.contains_key(name)
    });
    let current = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(maximum), _) => {
            let spared = portion::of(maximum, scale, Round::Up);
            (scale, (scale - spared).max(0))
        }
        (None, Some(minimum)) if portion::is_percentage(minimum) => {
            (scale, portion::of(minimum, scale, Round::Up))
        }
        (None, minimum) => {
            let there = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            let minimum = minimum
                .as_ref()
                .map_or(1, |minimum| portion::of(minimum, 0, Round::Up));
            (there, minimum)
        }
    };
    let allowed = match expected > 0 {
        true => (current - desired).max(0),
        false => 0,
    };
    let condition = match allowed > 0 {
        true => ("True", "SufficientPods", String::new()),
        false => ("False", "InsufficientPods", String::new()),
    };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(budget, old.conditions, condition, now)),
    };
    (status, wake)
}

/// The status when the pods' controllers could not be asked: nothing may be taken.
fn failed(
    budget: &PodDisruptionBudget,
    fault: &Error,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let condition = ("False", "SyncFailed", fault.to_string());
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(
            budget,
            old.conditions.clone(),
            condition,
            now,
        )),
        ..old
    }
}

fn with_condition(
    budget: &PodDisruptionBudget,
    old: Option<Vec<Condition>>,
    (status, reason, message): (&str, &str, String),
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = old.unwrap_or_default();
    let before = conditions
        .iter()
        .find(|c| c.type_ == ALLOWED && c.status == status);
    let since = before.map_or(Time(now), |before| before.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    conditions
}

impl Controller for Budgets {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(budget) = informers.budgets.get(key) else {
            return Ok(Outcome::Done);
        };
        let mut counted = informers.pods.in_namespace(&key.namespace);
        counted.retain(|pod| selects(&budget, pod) && !pods::is_finished(pod));
        let scale = match needs_scale(&budget) {
            true => self.scale(&key.namespace, &counted).await,
            false => Ok(0),
        };
        let now = Timestamp::now();
        let (new, wake) = match &scale {
            Ok(scale) => status(&budget, &counted, *scale, now),
            Err(error) => (failed(&budget, error, now), None),
        };
        let old = budget.status.clone().unwrap_or_default();
        if let Some(patch) = crate::common::merge::diff_typed(&old, &new) {
            // Bound to the resourceVersion: an eviction takes from the same numbers.
            let patch = serde_json::json!({
                "metadata": {"resourceVersion": budget.metadata.resource_version},
                "status": patch,
            });
            write::patch_status::<PodDisruptionBudget>(&self.0, key, patch).await?;
        }
        scale?;
        Ok(Outcome::maybe(wake))
    }
}

impl Budgets {
    /// How many pods the controllers of these pods are asked to run, together. Pods without a
    /// controller count for nothing.
    async fn scale(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<i32> {
        let owners: BTreeSet<_> = pods
            .iter()
            .filter_map(|pod| owner::controller_of(&pod.metadata))
            .map(|owner| (owner.uid.clone(), owner.name.clone()))
            .collect();
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for (uid, _) in owners {
            let named = pods
                .iter()
                .filter_map(|pod| owner::controller_of(&pod.metadata));
            let Some(reference) = named.into_iter().find(|owner| owner.uid == uid).cloned() else {
                continue;
            };
            let (uid, scale) = self.scale_of(namespace, &reference).await?;
            scales.insert(uid, scale);
        }
        Ok(scales.into_values().sum())
    }

    /// The scale of a controller, by the uid of what is scaled: of a ReplicaSet its Deployment.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<(String, i32)> {
        let informers = &self.0.informers;
        let key = Key::new(namespace, &owner.name);
        if owner.kind == "ReplicaSet"
            && let Some(set) = informers.replica_sets.get(&key)
        {
            return Ok(self.of_set(namespace, &set));
        }
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let name = (group.to_owned(), owner.kind.clone());
        let kinds = discover(&self.0.client).await?;
        let kind = kinds.into_iter().find(|kind| kind.group_kind() == name);
        let kind = kind.ok_or_else(|| Error::Object {
            object: format!("{} {key}", owner.kind),
            fault: "its kind is not served, so that its scale cannot be asked for".to_owned(),
        })?;
        let scale = kind
            .api(&self.0.client, namespace)
            .get_scale(&owner.name)
            .await;
        let scale = scale.doing(|| format!("get the scale of {} {key}", owner.kind))?;
        let replicas = scale.spec.and_then(|spec| spec.replicas);
        Ok((owner.uid.clone(), replicas.unwrap_or(0)))
    }

    fn of_set(&self, namespace: &str, set: &ReplicaSet) -> (String, i32) {
        let parent = owner::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let parent = parent.and_then(|owner| {
            let deployments = &self.0.informers.deployments;
            let deployment = deployments.get(&Key::new(namespace, &owner.name))?;
            Some((owner.uid.clone(), deployment.spec.replicas.unwrap_or(1)))
        });
        let own = || {
            (
                set.metadata.uid.clone().unwrap_or_default(),
                set.spec.replicas.unwrap_or(1),
            )
        };
        parent.unwrap_or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    #[test]
    fn golden_cases() {
        golden("disruption", |input| {
            let pods: Vec<_> = objects(input, "Pod").into_iter().map(Arc::new).collect();
            let budgets: Vec<PodDisruptionBudget> = objects(input, "PodDisruptionBudget");
            let lines = budgets.iter().map(|budget| {
                let (status, wake) = status(budget, &pods, 4, now(input));
                let disrupted = status.disrupted_pods.unwrap_or_default();
                let disrupted: Vec<_> = disrupted.keys().cloned().collect();
                format!(
                    "{}: {} of {} healthy, {} must be, {} may go; awaited: [{}]{}",
                    budget.metadata.name.as_ref().unwrap(),
                    status.current_healthy.unwrap(),
                    status.expected_pods.unwrap(),
                    status.desired_healthy.unwrap(),
                    status.disruptions_allowed.unwrap(),
                    disrupted.join(" "),
                    wake.map(|wake| format!(", again in {wake:?}"))
                        .unwrap_or_default(),
                )
            });
            lines.collect::<Vec<_>>().join("\n")
        });
    }
}
