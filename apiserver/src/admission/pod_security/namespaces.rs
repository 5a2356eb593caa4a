//! Namespaces themselves: labels that cannot be read are refused, and who asks for a stricter
//! standard is told which of the pods that are there break it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::{Level, PodSecurityConfig};
use super::editions::{Edition, Standard};
use super::standards;
use super::{PREFIX, in_force};
use crate::admission::{Attributes, Operation, in_namespace};
use crate::api::Api;
use crate::registry::{FieldError, FieldErrors, value};
use crate::remarks;
use crate::status::{Result, Status};

/// The most pods of a namespace that are looked at.
const PODS_MAX: usize = 3000;

/// Judges a write of a namespace.
pub fn judge(
    config: &PodSecurityConfig,
    api: &Api,
    write: &Attributes<'_>,
    namespace: &Value,
) -> Result<()> {
    let faults = faults(namespace);
    let known = write.old.map(self::faults).unwrap_or_default();
    // A namespace that has had such labels may be changed otherwise.
    if !faults.is_empty() && faults != known {
        return Err(Status::invalid("", "Namespace", write.name, &faults));
    }
    let Some(old) = write.old.filter(|_| write.operation == Operation::Update) else {
        return Ok(());
    };
    let asked = in_force(config, namespace, "enforce");
    let exempt = config.exemptions.namespaces.iter().any(|n| n == write.name);
    if exempt || !stricter(asked, in_force(config, old, "enforce")) {
        return Ok(());
    }
    let pods = in_namespace(api, "", "pods", write.name);
    for warning in warned(write.name, asked, &pods) {
        remarks::warn(warning);
    }
    Ok(())
}

/// The labels that cannot be read.
fn faults(namespace: &Value) -> FieldErrors {
    let labels = &namespace["metadata"]["labels"];
    let mut errors = FieldErrors::new();
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("{PREFIX}{mode}");
        let mut check = |label: String, known: &dyn Fn(&str) -> bool, wanted: &str| {
            if let Some(text) = labels[&label].as_str().filter(|text| !known(text)) {
                let field = format!("metadata.labels[{label}]");
                errors.push(FieldError::invalid(field, text, wanted));
            }
        };
        check(
            label.clone(),
            &|text| Standard::parse(text).is_some(),
            "must be one of privileged, baseline, restricted",
        );
        check(
            format!("{label}-version"),
            &|text| Edition::parse(text).is_some(),
            "must be \"latest\" or \"v1.x\"",
        );
    }
    errors
}

/// Whether pods that were right can be wrong now.
fn stricter(new: Level, old: Level) -> bool {
    let relaxed = new.1 == old.1 && new.0 <= old.0;
    new.0 != Standard::Privileged && !relaxed
}

/// What is told of the pods that are there: those that break the same count as one.
fn warned(namespace: &str, (standard, edition): Level, pods: &[Value]) -> Vec<String> {
    let mut breaking: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_MAX) {
        let broken = standards::check(standard, edition, &pod["spec"]);
        if broken.is_empty() {
            continue;
        }
        // What it is about, without where in the pod.
        let reasons: Vec<&str> = broken
            .iter()
            .map(|told| {
                told.split_once(" (")
                    .map_or(told.as_str(), |(what, _)| what)
            })
            .collect();
        let name = value::text(pod, "metadata.name");
        let (first, count) = breaking.entry(reasons.join(", ")).or_insert((name, 0));
        *first = name.min(*first);
        *count += 1;
    }
    let mut told: Vec<String> = breaking
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    told.sort_unstable();
    if !told.is_empty() {
        let level = format!("{}:{edition}", standard.name());
        let text = format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {level:?}"
        );
        told.insert(0, text);
    }
    if pods.len() > PODS_MAX {
        let text = format!(
            "new PodSecurity enforce level only checked against the first {PODS_MAX} of {} existing pods",
            pods.len()
        );
        told.insert(0, text);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_read() {
        let namespace = json!({"metadata": {"labels": {
            "pod-security.kubernetes.io/enforce": "basic",
            "pod-security.kubernetes.io/warn": "baseline",
            "pod-security.kubernetes.io/warn-version": "1.30",
        }}});
        let told: Vec<String> = faults(&namespace).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"basic\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"",
            ]
        );
    }

    #[test]
    fn only_stricter_levels_are_tried() {
        let latest = |standard| (standard, Edition::Latest);
        for (new, old, tried) in [
            (
                latest(Standard::Baseline),
                latest(Standard::Privileged),
                true,
            ),
            (
                latest(Standard::Baseline),
                latest(Standard::Baseline),
                false,
            ),
            (
                latest(Standard::Baseline),
                latest(Standard::Restricted),
                false,
            ),
            (
                latest(Standard::Privileged),
                (Standard::Baseline, Edition::Minor(30)),
                false,
            ),
            (
                latest(Standard::Baseline),
                (Standard::Restricted, Edition::Minor(30)),
                true,
            ),
        ] {
            assert_eq!(stricter(new, old), tried, "{new:?} after {old:?}");
        }
    }

    #[test]
    fn pods_that_break_the_same_are_one_warning() {
        let pod = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let host = json!({"hostNetwork": true});
        let pods = [
            pod("c", host.clone()),
            pod("b", host.clone()),
            pod("d", host),
            pod(
                "a",
                json!({"hostPID": true, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            ),
            pod("e", json!({})),
        ];
        let told = warned("n", (Standard::Baseline, Edition::Latest), &pods);
        assert_eq!(
            told,
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a: host namespaces, hostPath volumes",
                "b (and 2 other pods): host namespaces",
            ]
        );
        assert!(warned("n", (Standard::Privileged, Edition::Latest), &pods).is_empty());
    }
}
