//! Rules: what one lets someone do, as RBAC matches it.

use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::action::{Access, Action};

/// `PolicyRule`: verbs on resources, or verbs on paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs; `*` for all.
    #[serde(deserialize_with = "or_empty")]
    pub verbs: Vec<String>,
    /// Groups; `*` for all, empty for core.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of objects; none for all.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths: `/healthz`, `/healthz/*`, `*`.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

/// A list that may also be null.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

// === impl Rule ===

impl Rule {
    /// Whether the rule allows an action.
    pub fn allows(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Resource(access) => self.allows_access(access),
            Action::Path { verb, path } => {
                has(&self.verbs, verb)
                    && self
                        .non_resource_urls
                        .iter()
                        .any(|url| path_matches(url, path))
            }
        }
    }

    fn allows_access(&self, access: &Access<'_>) -> bool {
        has(&self.verbs, access.verb)
            && has(&self.api_groups, access.group)
            && self
                .resources
                .iter()
                .any(|one| resource_matches(one, access.resource, access.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == access.name))
    }
}

/// Whether a list has a text, or the star that stands for all.
fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

/// Whether a rule's resource covers a resource and its subresource.
pub fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((of, sub)) => {
            !subresource.is_empty() && sub == subresource && (of == "*" || of == resource)
        }
    }
}

/// Whether a rule's path covers a path.
pub fn path_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| match text {
            "" => Vec::new(),
            text => text.split(',').map(str::to_owned).collect(),
        };
        Rule {
            verbs: list(verbs),
            api_groups: groups.split(',').map(str::to_owned).collect(),
            resources: list(resources),
            resource_names: list(names),
            ..Rule::default()
        }
    }

    #[test]
    fn resources() {
        let get = |resource, subresource, name| {
            Action::Resource(Access {
                verb: "get",
                resource,
                subresource,
                name,
                ..Access::default()
            })
        };
        let pods = rule("get,list", "", "pods", "");
        let logs = rule("*", "*", "pods/log", "");
        let scales = rule("get", "", "*/scale", "");
        let named = rule("get", "", "secrets", "a,b");
        let all = rule("*", "*", "*", "");
        for (rule, action, expected) in [
            (&pods, get("pods", "", "x"), true),
            (&pods, get("pods", "log", "x"), false),
            (&pods, get("secrets", "", "x"), false),
            (&logs, get("pods", "log", "x"), true),
            (&logs, get("pods", "", "x"), false),
            (&scales, get("deployments", "scale", "x"), true),
            (&scales, get("deployments", "", "x"), false),
            (&named, get("secrets", "", "b"), true),
            (&named, get("secrets", "", "c"), false),
            (&named, get("secrets", "", ""), false),
            (&all, get("pods", "log", "x"), true),
        ] {
            assert_eq!(rule.allows(&action), expected, "{rule:?} {action:?}");
        }
        let other_group = Action::Resource(Access {
            verb: "get",
            group: "apps",
            resource: "pods",
            ..Access::default()
        });
        assert!(!pods.allows(&other_group));
        let path = Action::Path {
            verb: "get",
            path: "/healthz",
        };
        assert!(!all.allows(&path), "a rule of resources grants no path");
    }

    #[test]
    fn paths() {
        for (rule, path, expected) in [
            ("*", "/anything", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/a*", "/ab/c", true),
        ] {
            assert_eq!(path_matches(rule, path), expected, "{rule} {path}");
        }
    }
}
