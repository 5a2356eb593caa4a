//! The audit policy: what is recorded of which request. Pure but for reading its file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::auth::action::{Access, Action};
use crate::auth::rbac::rule::path_matches;
use crate::auth::user::User;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and the code of the answer.
    Metadata,
    /// The request's body too.
    Request,
    /// Both bodies.
    RequestResponse,
}

/// When in the life of a request something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// As soon as it is known who asks for what.
    RequestReceived,
    /// When the head of a response is sent whose body goes on: a watch, an exec.
    ResponseStarted,
    /// When it is answered.
    ResponseComplete,
    /// When the handler failed.
    Panic,
}

/// What is recorded of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How much.
    pub level: Level,
    /// Whether `metadata.managedFields` are left out of bodies.
    pub omit_managed_fields: bool,
    omit_stages: Vec<Stage>,
}

/// `Policy` of `audit.k8s.io/v1`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    api_version: String,
    kind: String,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the audit policy {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("the audit policy {path} is not usable: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

// === impl Policy ===

impl Policy {
    /// Reads a policy from its file.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|why| PolicyError::Content {
            path: path.to_owned(),
            why,
        })
    }

    /// Reads a policy in YAML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|fault| fault.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err("it must be of apiVersion audit.k8s.io/v1 and kind Policy".to_owned());
        }
        if policy.rules.is_empty() {
            return Err("it has no rules: nothing would be recorded".to_owned());
        }
        let mixed = |rule: &Rule| !rule.resources.is_empty() && !rule.non_resource_urls.is_empty();
        if policy.rules.iter().any(mixed) {
            return Err("a rule cannot be of resources and of nonResourceURLs".to_owned());
        }
        Ok(policy)
    }

    /// What is recorded of a request: as the first rule says that is of it.
    pub fn decide(&self, user: &User, action: &Action<'_>) -> Settings {
        let Some(rule) = self.rules.iter().find(|rule| rule.is_of(user, action)) else {
            return Settings::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        Settings {
            level: rule.level,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            omit_stages,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Whether a stage is left out.
    pub fn omits(&self, stage: Stage) -> bool {
        self.omit_stages.contains(&stage)
    }
}

// === impl Rule ===

impl Rule {
    fn is_of(&self, user: &User, action: &Action<'_>) -> bool {
        let any =
            |list: &[String], is: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(is);
        let verb = match action {
            Action::Resource(access) => access.verb,
            Action::Path { verb, .. } => verb,
        };
        any(&self.users, &|name| name == user.name())
            && any(&self.user_groups, &|group| user.is_in(group))
            && any(&self.verbs, &|one| one == verb)
            && match action {
                Action::Resource(access) => self.is_of_resource(access),
                Action::Path { path, .. } => {
                    self.namespaces.is_empty()
                        && self.resources.is_empty()
                        && any(&self.non_resource_urls, &|url| path_matches(url, path))
                }
            }
    }

    fn is_of_resource(&self, access: &Access<'_>) -> bool {
        if !self.non_resource_urls.is_empty() {
            return false;
        }
        let namespaces = &self.namespaces;
        let here = namespaces.is_empty() || namespaces.iter().any(|one| one == access.namespace);
        here && (self.resources.is_empty() || self.resources.iter().any(|one| one.has(access)))
    }
}

impl GroupResources {
    fn has(&self, access: &Access<'_>) -> bool {
        if self.group != access.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty()
            || self.resource_names.iter().any(|name| name == access.name);
        named && self.resources.iter().any(|one| is_resource(one, access))
    }
}

/// `pods`, `pods/log`, `pods/*` (pods and all below), `*/status`, `*`.
fn is_resource(rule: &str, access: &Access<'_>) -> bool {
    let Some((resource, subresource)) = rule.split_once('/') else {
        return rule == "*" || (rule == access.resource && access.subresource.is_empty());
    };
    let fits = |rule: &str, is: &str| rule == "*" || rule == is;
    fits(resource, access.resource) && fits(subresource, access.subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  userGroups: [system:authenticated]
  nonResourceURLs: ["/api*", /version]
- level: Request
  resources: [{group: "", resources: [configmaps]}]
  namespaces: [kube-system]
- level: Metadata
  resources: [{group: "", resources: [secrets, configmaps, pods/*]}]
  omitStages: [ResponseStarted]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: apps, resources: ["*/scale"]}]
- level: Request
  resources: [{group: ""}, {group: apps, resources: [deployments], resourceNames: [web]}]
"#;

    fn level(user: &str, verb: &str, what: &str) -> Level {
        let policy = Policy::parse(POLICY).unwrap();
        let user = User::authenticated(user, [""; 0]);
        if what.starts_with('/') {
            return policy
                .decide(&user, &Action::Path { verb, path: what })
                .level;
        }
        let mut parts = what.split(' ');
        let mut next = || parts.next().unwrap_or_default();
        let (group, resource) = next().split_once(':').unwrap();
        let (namespace, name) = (next(), next());
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let access = Access {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            ..Access::default()
        };
        policy.decide(&user, &Action::Resource(access)).level
    }

    #[test]
    fn the_first_rule_that_fits() {
        for (user, verb, what, expected) in [
            ("system:kube-proxy", "watch", ":services", Level::None),
            ("system:kube-proxy", "get", ":services", Level::Request),
            ("jane", "get", "/apis/apps", Level::None),
            ("jane", "get", "/healthz", Level::None),
            ("jane", "get", ":configmaps kube-system x", Level::Request),
            ("jane", "get", ":configmaps default x", Level::Metadata),
            ("jane", "get", ":pods/log default x", Level::Metadata),
            ("jane", "get", ":pods default x", Level::Metadata),
            ("jane", "get", ":services default x", Level::Request),
            (
                "jane",
                "patch",
                "apps:deployments/scale default x",
                Level::RequestResponse,
            ),
            (
                "jane",
                "patch",
                "apps:deployments default web",
                Level::Request,
            ),
            (
                "jane",
                "patch",
                "apps:deployments default other",
                Level::None,
            ),
            ("jane", "get", "batch:jobs default other", Level::None),
        ] {
            assert_eq!(level(user, verb, what), expected, "{user} {verb} {what}");
        }
    }

    #[test]
    fn stages_of_the_policy_and_of_the_rule_are_left_out() {
        let policy = Policy::parse(POLICY).unwrap();
        let user = User::authenticated("jane", [""; 0]);
        let secret = Action::Resource(Access {
            verb: "get",
            resource: "secrets",
            ..Access::default()
        });
        let settings = policy.decide(&user, &secret);
        assert!(settings.omits(Stage::RequestReceived) && settings.omits(Stage::ResponseStarted));
        assert!(!settings.omits(Stage::ResponseComplete) && !settings.omit_managed_fields);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "kind: Policy",
            "apiVersion: audit.k8s.io/v1\nkind: Policy",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, resources: [{}], nonResourceURLs: [/a]}]",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
