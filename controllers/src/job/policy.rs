//! What a job's policies make of failed pods and of finished indexes. Pure.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use super::indexes::Indexes;
use crate::common::pods;

/// What is done about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the limits.
    Count,
    /// It does not count.
    Ignore,
    /// The whole job fails, with this message.
    FailJob(String),
    /// Its index fails.
    FailIndex,
}

/// The first rule of the pod failure policy that a failed pod meets decides.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let spec = job.spec.as_ref();
    let Some(policy) = spec.and_then(|spec| spec.pod_failure_policy.as_ref()) else {
        return Verdict::Count;
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let met = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => by_exit_code(codes, pod),
            (None, Some(patterns)) => by_condition(patterns, pod),
            (None, None) => None,
        };
        let Some(why) = met else { continue };
        return match rule.action.as_str() {
            "FailJob" => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let (before, after) = why;
                Verdict::FailJob(format!(
                    "{before} for pod {namespace}/{name} {after} matching FailJob rule at index {index}"
                ))
            }
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What stands before and after the pod's name in the message.
type Why = (String, String);

fn by_exit_code(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<Why> {
    let is_meant = |name: &str| rule.container_name.as_deref().is_none_or(|one| one == name);
    let meets = |code: i32| {
        code != 0
            && match rule.operator.as_str() {
                "In" => rule.values.contains(&code),
                "NotIn" => !rule.values.contains(&code),
                _ => false,
            }
    };
    let ended = terminated(pod).find(|(name, end)| is_meant(name) && meets(end.exit_code));
    ended.map(|(name, end)| {
        let code = end.exit_code;
        (
            format!("Container {name}"),
            format!("failed with exit code {code}"),
        )
    })
}

fn by_condition(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<Why> {
    let matches = |pattern: &PodFailurePolicyOnPodConditionsPattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        let mut conditions = pods::conditions(pod).iter();
        conditions.any(|one| one.type_ == pattern.type_ && one.status == status)
    };
    let met = patterns.iter().find(|pattern| matches(pattern))?;
    Some(("Pod".to_owned(), format!("has condition {}", met.type_)))
}

/// The containers of a pod that have ended, with their names.
pub fn terminated(pod: &Pod) -> impl Iterator<Item = (&str, &ContainerStateTerminated)> {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| {
        let own = status.container_statuses.iter().flatten();
        own.chain(status.init_container_statuses.iter().flatten())
    });
    containers.filter_map(|container| {
        let end = container.state.as_ref()?.terminated.as_ref()?;
        Some((container.name.as_str(), end))
    })
}

/// The index of the first rule of the success policy that the completed indexes meet.
pub fn success(job: &Job, completed: &Indexes, completions: i32) -> Option<usize> {
    let policy = job.spec.as_ref()?.success_policy.as_ref()?;
    policy.rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref();
        let wanted = wanted.map(|text| Indexes::parse(text, completions));
        let done = wanted
            .as_ref()
            .map_or(completed.count(), |wanted| wanted.shared(completed));
        match (rule.succeeded_count, wanted) {
            (Some(count), _) => done >= count,
            (None, Some(wanted)) => done == wanted.count(),
            (None, None) => false,
        }
    })
}
