//! `PodSecurity`: the three standards, as the labels of a namespace ask for them.
//!
//! `pod-security.kubernetes.io/enforce`, `audit` and `warn` name a standard each: `privileged`
//! (anything goes), `baseline` or `restricted`; [`standards`] has what they demand. Pods that
//! break what is enforced are refused; what only warns is told to the client, for templates too.
//! `enforce-version` and its like choose the edition of a standard, `v1.30` for one. What
//! namespaces do not say, the operator's [`config`] does; [`namespaces`] are judged too.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-admission/>

mod checks;
pub mod config;
mod editions;
mod namespaces;
mod pod;
mod standards;

use async_trait::async_trait;
use serde_json::Value;

use self::config::{Level, PodSecurityConfig};
use self::editions::{Edition, Standard};
use super::{Attributes, Operation, Plugin, find};
use crate::api::Api;
use crate::registry::value;
use crate::remarks;
use crate::status::Result;

const PREFIX: &str = "pod-security.kubernetes.io/";

pub struct PodSecurity(pub PodSecurityConfig);

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
        if write.is_on("", "namespaces") && write.operation != Operation::Delete {
            return namespaces::judge(&self.0, api, write, object);
        }
        let Some(path) = template(write) else {
            return Ok(());
        };
        let spec = value::at(object, path).unwrap_or(&Value::Null);
        if unchanged(write, spec, path) {
            return Ok(());
        }
        if let Some(by) = self.exempt_by(write, spec) {
            remarks::annotate(format!("{PREFIX}exempt"), by);
            return Ok(());
        }
        let Some(namespace) = find(api, "", "namespaces", "", write.namespace) else {
            return Ok(());
        };
        let asked = |mode| in_force(&self.0, &namespace, mode);
        let enforced = asked("enforce");
        let is_pod = path == "spec";
        if is_pod {
            let (standard, edition) = enforced;
            let policy = format!("{}:{edition}", standard.name());
            remarks::annotate(format!("{PREFIX}enforce-policy"), policy);
        }
        if let Some(broken) = broken(&enforced, spec).filter(|_| is_pod) {
            return Err(write.forbid(format!("violates PodSecurity {broken}")));
        }
        let warned = asked("warn");
        if let Some(broken) = broken(&warned, spec).filter(|_| !(is_pod && warned == enforced)) {
            remarks::warn(format!("would violate PodSecurity {broken}"));
        }
        if let Some(broken) = broken(&asked("audit"), spec) {
            let violations = format!("would violate PodSecurity {broken}");
            remarks::annotate(format!("{PREFIX}audit-violations"), violations);
        }
        Ok(())
    }
}

impl PodSecurity {
    /// As what the operator lets a write pass, whatever it is.
    fn exempt_by(&self, write: &Attributes<'_>, spec: &Value) -> Option<&'static str> {
        let exempt = &self.0.exemptions;
        let class = value::text(spec, "runtimeClassName");
        let exempted = [
            ("namespace", &exempt.namespaces, write.namespace),
            ("user", &exempt.usernames, write.user.name()),
            ("runtimeClass", &exempt.runtime_classes, class),
        ];
        let mut exempted = exempted.into_iter();
        let found = exempted.find(|(_, all, one)| all.iter().any(|known| known == one));
        found.map(|(by, ..)| by)
    }
}

/// The standard and its edition that hold in a namespace. What cannot be read of a standard is the
/// strictest, and of an edition the latest, as upstream has it.
fn in_force(config: &PodSecurityConfig, namespace: &Value, mode: &str) -> Level {
    let labels = &namespace["metadata"]["labels"];
    let label = |name: String| labels[name].as_str();
    let (standard, edition) = config.default_of(mode);
    let standard = label(format!("{PREFIX}{mode}")).map_or(standard, |text| {
        Standard::parse(text).unwrap_or(Standard::Restricted)
    });
    let edition = label(format!("{PREFIX}{mode}-version")).map_or(edition, |text| {
        Edition::parse(text).unwrap_or(Edition::Latest)
    });
    (standard, edition)
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

/// What a specification breaks, as `"restricted:latest": privileged (...), ...`.
fn broken((standard, edition): &Level, spec: &Value) -> Option<String> {
    let broken = standards::check(*standard, *edition, spec);
    let name = standard.name();
    (!broken.is_empty()).then(|| format!("\"{name}:{edition}\": {}", broken.join(", ")))
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
        let config = PodSecurityConfig::default();
        let asked = |mode| in_force(&config, &namespace, mode);
        assert_eq!(asked("enforce"), (Standard::Baseline, Edition::Latest));
        assert_eq!(asked("warn"), (Standard::Restricted, Edition::Minor(30)));
        assert_eq!(asked("audit").0, Standard::Privileged);
        let spec = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]});
        let told = broken(&(Standard::Baseline, Edition::Minor(30)), &spec).unwrap();
        assert!(told.starts_with("\"baseline:v1.30\": privileged"), "{told}");
    }
}
