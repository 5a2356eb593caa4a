//! Whether a write is one that a webhook or a policy asks for: rules, selectors, and the match
//! policy. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Registry, Resource, checks, value};

/// The group whose own objects nothing may stand in the way of.
const OWN_GROUP: &str = "admissionregistration.k8s.io";

/// What a webhook or policy asks for.
#[derive(Clone, Copy)]
pub struct Criteria<'a> {
    /// `rules`, or `resourceRules`.
    pub rules: &'a [Value],
    /// `excludeResourceRules`
    pub excluded: &'a [Value],
    /// `matchPolicy` is `Equivalent`.
    pub equivalent: bool,
    /// `namespaceSelector`
    pub namespaces: Option<&'a Value>,
    /// `objectSelector`
    pub objects: Option<&'a Value>,
}

// === impl Criteria ===

impl<'a> Criteria<'a> {
    /// Those of a webhook.
    pub fn of_webhook(hook: &'a Value) -> Self {
        Self {
            rules: value::list(hook, "rules"),
            excluded: &[],
            ..Self::selectors(hook)
        }
    }

    /// Those of a policy's constraints, or of a binding's.
    pub fn of_constraints(constraints: &'a Value) -> Self {
        Self {
            rules: value::list(constraints, "resourceRules"),
            excluded: value::list(constraints, "excludeResourceRules"),
            ..Self::selectors(constraints)
        }
    }

    fn selectors(of: &'a Value) -> Self {
        Self {
            rules: &[],
            excluded: &[],
            equivalent: value::text(of, "matchPolicy") != "Exact",
            namespaces: value::at(of, "namespaceSelector"),
            objects: value::at(of, "objectSelector"),
        }
    }

    /// The resource as which the write is asked for: its own, or an equivalent one; `None` when it
    /// is not asked for.
    pub fn matched(
        &self,
        registry: &Registry,
        write: &Attributes<'_>,
        object: &Value,
        namespace: Option<&Value>,
    ) -> Option<Matched> {
        if write.resource.kind.group == OWN_GROUP {
            return None;
        }
        if !self.selects_namespace(write, object, namespace) || !self.selects_object(write, object)
        {
            return None;
        }
        let own = Place::of(write, write.resource);
        if self.excluded.iter().any(|rule| own.is_in(rule)) {
            return None;
        }
        if self.rules.iter().any(|rule| own.is_in(rule)) {
            return Some(Matched::Own);
        }
        let others = equivalents(registry, write.resource).into_iter();
        let mut others = others.filter(|_| self.equivalent);
        others.find_map(|other| {
            let place = Place::of(write, &other);
            let matched = self.rules.iter().any(|rule| place.is_in(rule));
            matched.then(|| Matched::As(other))
        })
    }

    /// Without rules, everything is asked for: a binding's constraints only narrow.
    pub fn narrows(
        &self,
        write: &Attributes<'_>,
        object: &Value,
        namespace: Option<&Value>,
    ) -> bool {
        let own = Place::of(write, write.resource);
        self.selects_namespace(write, object, namespace)
            && self.selects_object(write, object)
            && !self.excluded.iter().any(|rule| own.is_in(rule))
            && (self.rules.is_empty() || self.rules.iter().any(|rule| own.is_in(rule)))
    }

    fn selects_namespace(
        &self,
        write: &Attributes<'_>,
        object: &Value,
        namespace: Option<&Value>,
    ) -> bool {
        let Some(selector) = self.namespaces.filter(|selector| !is_everything(selector)) else {
            return true;
        };
        let labels = match namespace {
            Some(namespace) => &namespace["metadata"]["labels"],
            // A namespace is in itself; what is beside the namespaces is always asked for.
            None if write.is_on("", "namespaces") => &object["metadata"]["labels"],
            None => return true,
        };
        checks::selects(selector, labels)
    }

    fn selects_object(&self, write: &Attributes<'_>, object: &Value) -> bool {
        let Some(selector) = self.objects.filter(|selector| !is_everything(selector)) else {
            return true;
        };
        let selects = |object: &Value| checks::selects(selector, &object["metadata"]["labels"]);
        selects(object) || write.old.is_some_and(selects)
    }
}

fn is_everything(selector: &Value) -> bool {
    selector.as_object().is_none_or(serde_json::Map::is_empty)
}

/// As what a write is asked for.
#[derive(Clone)]
pub enum Matched {
    /// As it is.
    Own,
    /// As another version of its kind.
    As(Arc<Resource>),
}

/// The other views of a kind's objects: its other versions.
fn equivalents(registry: &Registry, resource: &Resource) -> Vec<Arc<Resource>> {
    let kind = &resource.kind;
    let same = |other: &Arc<Resource>| {
        other.kind.storage() == kind.storage() && other.api_version != resource.api_version
    };
    registry.all().into_iter().filter(same).collect()
}

/// Where a write is, as rules name it.
struct Place<'a> {
    operation: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    name: &'a str,
    namespaced: bool,
}

impl<'a> Place<'a> {
    fn of(write: &Attributes<'a>, resource: &'a Resource) -> Self {
        let kind = &resource.kind;
        Self {
            operation: name_of(write.operation),
            group: &kind.group,
            version: &kind.version,
            resource: &kind.plural,
            subresource: write.subresource,
            name: write.name,
            namespaced: kind.is_namespaced(),
        }
    }

    fn is_in(&self, rule: &Value) -> bool {
        let has = |field: &str, wanted: &str| {
            let mut all = value::list(rule, field).iter();
            all.any(|one| one == "*" || one == wanted)
        };
        let scope = match value::text(rule, "scope") {
            "Namespaced" => self.namespaced,
            "Cluster" => !self.namespaced,
            _ => true,
        };
        let names = value::list(rule, "resourceNames");
        scope
            && (names.is_empty() || names.iter().any(|name| name == self.name))
            && has("operations", self.operation)
            && has("apiGroups", self.group)
            && has("apiVersions", self.version)
            && value::list(rule, "resources")
                .iter()
                .filter_map(Value::as_str)
                .any(|one| self.is_resource(one))
    }

    fn is_resource(&self, pattern: &str) -> bool {
        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        let is = |pattern: &str, given: &str| pattern == "*" || pattern == given;
        is(resource, self.resource) && is(subresource, self.subresource)
    }
}

/// The name of an operation, as rules have it.
pub fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(subresource: &'static str) -> Place<'static> {
        Place {
            operation: "CREATE",
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource,
            name: "a",
            namespaced: true,
        }
    }

    #[test]
    fn rules_are_read_as_upstream() {
        let rule = |resources: Value, scope: &str| json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": resources, "scope": scope});
        for (resources, subresource, expected) in [
            (json!(["deployments"]), "", true),
            (json!(["deployments"]), "scale", false),
            (json!(["deployments/scale"]), "scale", true),
            (json!(["deployments/*"]), "scale", true),
            (json!(["*"]), "", true),
            (json!(["*"]), "scale", false),
            (json!(["*/*"]), "scale", true),
            (json!(["*/scale"]), "scale", true),
            (json!(["pods"]), "", false),
        ] {
            assert_eq!(
                place(subresource).is_in(&rule(resources.clone(), "*")),
                expected,
                "{resources}/{subresource}"
            );
        }
        assert!(!place("").is_in(&rule(json!(["*"]), "Cluster")));
        let mut other = rule(json!(["*"]), "*");
        other["operations"] = json!(["DELETE"]);
        assert!(!place("").is_in(&other));
    }
}
