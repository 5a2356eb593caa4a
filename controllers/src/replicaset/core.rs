//! What a ReplicaSet does next. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;

use super::rank;
use crate::common::pods;

/// The most pods created or deleted in one go, as upstream's `burstReplicas`.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Create so many.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<Pod>>),
}

/// What a ReplicaSet is seen to be.
pub struct Observed<'a> {
    /// The ReplicaSet.
    pub set: &'a ReplicaSet,
    /// The pods that it controls.
    pub owned: &'a [Arc<Pod>],
    /// The pods of its siblings, those with the same owner, itself included: they tell which
    /// nodes are crowded.
    pub related: &'a [Arc<Pod>],
    /// Whether the cache shows all that was written; else pods are not counted.
    pub settled: bool,
}

/// The number of pods asked for.
pub fn desired(spec: &ReplicaSetSpec) -> usize {
    usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// Decides about the pods.
pub fn step(observed: &Observed<'_>, now: Timestamp) -> Step {
    if !observed.settled || observed.set.metadata.deletion_timestamp.is_some() {
        return Step::Keep;
    }
    let active: Vec<_> = observed
        .owned
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let wanted = desired(&observed.set.spec);
    if active.len() < wanted {
        return Step::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    match surplus {
        0 => Step::Keep,
        _ if wanted == 0 => Step::Delete(active.into_iter().take(surplus).collect()),
        _ => Step::Delete(rank::first_to_go(active, observed.related, surplus, now)),
    }
}

/// The pod that the template makes.
pub fn new_pod(set: &ReplicaSet, owner: OwnerReference) -> Pod {
    let template = set.spec.template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: set.metadata.namespace.clone(),
            generate_name: Some(format!("{name}-")),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// What went wrong with the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Pods could not be created.
    Create,
    /// Pods could not be deleted.
    Delete,
}

/// The status, and when it changes by the mere passing of time (a pod becomes available).
pub fn status(
    observed: &Observed<'_>,
    failure: Option<(Failure, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = &observed.set.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let active: Vec<_> = observed
        .owned
        .iter()
        .filter(|pod| pods::is_active(pod))
        .collect();
    let count = |test: &dyn Fn(&Pod) -> bool| -> i32 {
        let number = active.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let has_labels = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        let has = |(k, v): (&String, &String)| labels.is_some_and(|l| l.get(k) == Some(v));
        template_labels.iter().all(has)
    };
    let terminating = observed
        .owned
        .iter()
        .filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod));
    let old = observed.set.status.clone().unwrap_or_default();
    // Upstream leaves zeros out, and its clients read a missing count as zero.
    let some = |count: i32| (count != 0).then_some(count);
    let status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&has_labels)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, min_ready, now))),
        terminating_replicas: Some(i32::try_from(terminating.count()).unwrap_or(i32::MAX)),
        observed_generation: observed.set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
    };
    let soonest = active
        .iter()
        .filter_map(|pod| pods::available_in(pod, min_ready, now))
        .min();
    (status, soonest)
}

/// `ReplicaFailure` stands while the last step failed.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(Failure, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const TYPE: &str = "ReplicaFailure";
    let is_failure = |c: &ReplicaSetCondition| c.type_.as_deref() == Some(TYPE);
    let mut conditions = old.unwrap_or_default();
    match failure {
        Some(_) if conditions.iter().any(is_failure) => {}
        Some((failure, message)) => conditions.push(ReplicaSetCondition {
            type_: Some(TYPE.to_owned()),
            status: Some("True".to_owned()),
            last_transition_time: Some(Time(now)),
            reason: Some(format!("Failed{failure:?}")),
            message: Some(message),
        }),
        None => conditions.retain(|condition| !is_failure(condition)),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    /// Reads a ReplicaSet and its pods, writes what happens next and the status.
    fn run(input: &str) -> String {
        let now = now(input);
        let sets: Vec<ReplicaSet> = objects(input, "ReplicaSet");
        let owned: Vec<_> = objects::<Pod>(input, "Pod")
            .into_iter()
            .map(Arc::new)
            .collect();
        let observed = Observed {
            set: &sets[0],
            owned: &owned,
            related: &owned,
            settled: !input.contains("# cache behind"),
        };
        let step = match step(&observed, now) {
            Step::Keep => "keep".to_owned(),
            Step::Create(count) => format!("create {count}"),
            Step::Delete(pods) => {
                let names = pods.iter().map(|pod| pod.metadata.name.clone().unwrap());
                format!("delete {}", names.collect::<Vec<_>>().join(" "))
            }
        };
        let (status, wake) = status(&observed, None, now);
        let wake = wake.map_or("no deadline".to_owned(), |wait| {
            format!("again in {wait:?}")
        });
        let status = serde_json::to_string(&status).unwrap();
        format!("{step}\n{wake}\n{status}")
    }

    #[test]
    fn golden_cases() {
        golden("replicaset", run);
    }

    #[test]
    fn a_failure_is_shown_until_a_step_goes_well() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let failed = conditions(None, Some((Failure::Create, "quota".into())), now);
        assert_eq!(
            failed.as_ref().unwrap()[0].reason.as_deref(),
            Some("FailedCreate")
        );
        assert_eq!(conditions(failed, None, now), None);
    }
}
