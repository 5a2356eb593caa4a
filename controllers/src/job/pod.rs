//! The pods of a job: what each is made of, and what one tells of its index. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::api::ObjectMeta;

use super::policy;
use crate::common::{owner, pods};

/// Held by pods whose end is not counted yet.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation: the completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation: how often the index failed before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The pod that a job makes; with an index, the pod of that index.
pub fn new(job: &Job, index: Option<(i32, Option<i32>)>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone());
    let template = template.unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let mut finalizers = meta.finalizers.unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: job.metadata.namespace.clone(),
            generate_name: Some(format!("{name}-")),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: Some(finalizers),
            owner_references: Some(vec![owner::controller_reference(job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    if let Some((index, failures)) = index {
        give_index(&mut pod, name, index, failures);
    }
    pod
}

fn give_index(pod: &mut Pod, job: &str, index: i32, failures: Option<i32>) {
    pod.metadata.generate_name = Some(format!("{job}-{index}-"));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some(failures) = failures {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|variable| variable.name != INDEX_VARIABLE) {
            env.push(index_variable());
        }
    }
}

fn index_variable() -> EnvVar {
    EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.annotations['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The completion index of a pod.
pub fn index(pod: &Pod) -> Option<i32> {
    let labels = pod.metadata.labels.as_ref()?;
    labels.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often a pod's index failed before it.
fn earlier_failures(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let count = annotations.and_then(|all| all.get(INDEX_FAILURES));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// How often an index failed, as its failed pods tell.
pub fn failures_of(index_wanted: i32, failed: &[Arc<Pod>]) -> i32 {
    let of_index = failed.iter().filter(|pod| index(pod) == Some(index_wanted));
    of_index
        .map(|pod| earlier_failures(pod) + 1)
        .max()
        .unwrap_or(0)
}

/// Whether the end of a pod is to be counted yet.
pub fn is_tracked(pod: &Pod) -> bool {
    let mut finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.any(|one| one == FINALIZER)
}

/// When a pod ended: its last container, else when it ceased to be ready or was deleted.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let ends = policy::terminated(pod).filter_map(|(_, end)| Some(end.finished_at.as_ref()?.0));
    let unready = || {
        let mut conditions = pods::conditions(pod).iter();
        let ready = conditions.find(|one| one.type_ == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let meta = &pod.metadata;
    let times = || {
        meta.deletion_timestamp
            .as_ref()
            .or(meta.creation_timestamp.as_ref())
    };
    ends.max()
        .or_else(unready)
        .or_else(|| times().map(|time| time.0))
}
