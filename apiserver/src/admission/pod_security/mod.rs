//! `PodSecurity`: the three standards, as the labels of a namespace ask for them.
//!
//! `pod-security.kubernetes.io/enforce`, `audit` and `warn` name a standard each: `privileged`
//! (anything goes), `baseline` or `restricted`; [`standards`] has what they demand. Pods that
//! break what is enforced are refused; what only warns is told to the client, for templates too.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-admission/>

mod standards;

use async_trait::async_trait;
use serde_json::Value;

use self::standards::Standard;
use super::{Attributes, Operation, Plugin, find};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;
use crate::warnings;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LATEST: &str = "latest";

pub struct PodSecurity;

/// The kinds that make pods, and where their template's specification is.
const TEMPLATES: [(&str, &str, &str); 9] = [
    ("", "podtemplates", "template.spec"),
    ("", "replicationcontrollers", "spec.template.spec"),
    ("apps", "daemonsets", "spec.template.spec"),
    ("apps", "deployments", "spec.template.spec"),
    ("apps", "replicasets", "spec.template.spec"),
    ("apps", "statefulsets", "spec.template.spec"),
    ("batch", "jobs", "spec.template.spec"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
    ("", "pods", "spec"),
];

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let Some(path) = template(write) else {
            return Ok(());
        };
        let spec = value::at(object, path).unwrap_or(&Value::Null);
        if unchanged(write, spec, path) {
            return Ok(());
        }
        let Some(namespace) = find(api, "", "namespaces", "", write.namespace) else {
            return Ok(());
        };
        let enforced = asked(&namespace, "enforce");
        let is_pod = path == "spec";
        if let Some(broken) = broken(&enforced, spec).filter(|_| is_pod) {
            return Err(write.forbid(format!("violates PodSecurity {broken}")));
        }
        let warned = asked(&namespace, "warn");
        if let Some(broken) = broken(&warned, spec).filter(|_| !(is_pod && warned == enforced)) {
            warnings::add(format!("would violate PodSecurity {broken}"));
        }
        if let Some(broken) = broken(&asked(&namespace, "audit"), spec) {
            let resource = write.resource.kind.group_resource();
            tracing::info!(user = write.user.name(), %resource, namespace = write.namespace, name = write.name, broken, "would violate PodSecurity");
        }
        Ok(())
    }
}

/// Where the specification is, when the write is one of pods or of what makes pods.
fn template(write: &Attributes<'_>) -> Option<&'static str> {
    if write.operation == Operation::Delete {
        return None;
    }
    let kind = &write.resource.kind;
    let found = TEMPLATES
        .iter()
        .find(|(group, plural, _)| *group == kind.group && *plural == kind.plural)?;
    let whole = write.subresource.is_empty();
    let debugs = kind.plural == "pods" && write.subresource == "ephemeralcontainers";
    (whole || debugs).then_some(found.2)
}

/// Updates that leave the specification as it was are let pass, whatever it is.
fn unchanged(write: &Attributes<'_>, spec: &Value, path: &str) -> bool {
    let old = write.old.and_then(|old| value::at(old, path));
    old.is_some_and(|old| old == spec)
}

/// The standard and its version that a namespace asks for. What cannot be read is the
/// strictest, as upstream has it.
fn asked(namespace: &Value, mode: &str) -> (Standard, String) {
    let labels = &namespace["metadata"]["labels"];
    let label = |name: String| labels[name].as_str();
    let standard = match label(format!("{PREFIX}{mode}")) {
        None | Some("privileged") => Standard::Privileged,
        Some("baseline") => Standard::Baseline,
        Some(_) => Standard::Restricted,
    };
    let version = label(format!("{PREFIX}{mode}-version")).unwrap_or(LATEST);
    (standard, version.to_owned())
}

/// What a specification breaks, as `"restricted:latest": privileged (...), ...`.
fn broken((standard, version): &(Standard, String), spec: &Value) -> Option<String> {
    let broken = standards::check(*standard, spec);
    let name = standard.name();
    (!broken.is_empty()).then(|| format!("\"{name}:{version}\": {}", broken.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_namespace_asks() {
        let namespace = json!({"metadata": {"labels": {
            "pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/warn": "nonsense",
            "pod-security.kubernetes.io/warn-version": "v1.30",
        }}});
        assert_eq!(
            asked(&namespace, "enforce"),
            (Standard::Baseline, "latest".into())
        );
        assert_eq!(
            asked(&namespace, "warn"),
            (Standard::Restricted, "v1.30".into())
        );
        assert_eq!(asked(&namespace, "audit").0, Standard::Privileged);
    }
}
