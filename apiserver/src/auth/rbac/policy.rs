//! The roles and bindings that every cluster has, read from the tables in `policy/`.
//!
//! ```text
//! clusterrole NAME [aggregates TAG] [labelled TAG]
//! role NAMESPACE NAME
//! controller NAME                       a ClusterRole system:controller:NAME, and its binding
//!   VERBS GROUP RESOURCES [named NAMES]
//!   VERBS path PATHS
//!   record                              writes events
//! clusterrolebinding NAME ROLE SUBJECT...
//! rolebinding NAMESPACE NAME ROLE SUBJECT...
//! ```
//!
//! Lists are separated by commas. `core` is the core group; `read` is `get,list,watch`, `write`
//! all that changes, `all` both. A TAG stands for the label
//! `rbac.authorization.k8s.io/aggregate-TAG: "true"`. A SUBJECT is `user:NAME`, `group:NAME` or
//! `account:NAMESPACE/NAME`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::GROUP;
use super::rule::Rule;

const TABLES: [&str; 3] = [
    include_str!("policy/roles.txt"),
    include_str!("policy/controllers.txt"),
    include_str!("policy/bindings.txt"),
];

/// The user as whom all controllers run.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// The label of all these objects.
pub const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// The annotation that keeps an object up to date; `false` leaves it to its administrator.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The objects, with their `kind`: roles first, then bindings.
pub fn objects() -> &'static [Value] {
    static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let parsed = TABLES.iter().map(|table| parse(table));
        let (roles, bindings): (Vec<_>, Vec<_>) = parsed
            .flatten()
            .partition(|object| object["roleRef"].is_null());
        roles.into_iter().chain(bindings).collect()
    });
    &OBJECTS
}

/// The rules of one of the cluster roles.
pub fn rules_of(name: &str) -> Vec<Rule> {
    let mut roles = objects().iter();
    let role = roles.find(|role| role["kind"] == "ClusterRole" && role["metadata"]["name"] == name);
    let rules = role.and_then(|role| serde_json::from_value(role["rules"].clone()).ok());
    rules.unwrap_or_default()
}

fn parse(table: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    let mut bindings = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            rule if line.starts_with(' ') => {
                if let Some(role) = objects.last_mut() {
                    add_rules(role, rule);
                }
            }
            ["clusterrole", name, options @ ..] => objects.push(cluster_role(name, options)),
            ["role", namespace, name] => {
                let mut role = object("Role", name);
                role["metadata"]["namespace"] = (*namespace).into();
                role["rules"] = json!([]);
                objects.push(role);
            }
            ["controller", name] => {
                let full = format!("system:controller:{name}");
                objects.push(cluster_role(&full, &[]));
                let account = format!("account:kube-system/{name}");
                let user = format!("user:{CONTROLLERS}");
                let kinds = ("ClusterRoleBinding", "ClusterRole");
                bindings.push(binding(kinds, &full, &full, &[&account, &user]));
            }
            ["clusterrolebinding", name, role, subjects @ ..] => {
                let kinds = ("ClusterRoleBinding", "ClusterRole");
                bindings.push(binding(kinds, name, role, subjects));
            }
            ["rolebinding", namespace, name, role, subjects @ ..] => {
                let mut binding = binding(("RoleBinding", "Role"), name, role, subjects);
                binding["metadata"]["namespace"] = (*namespace).into();
                bindings.push(binding);
            }
            _ => unreachable!("the tables of the default roles are malformed: {line:?}"),
        }
    }
    objects.extend(bindings);
    objects
}

fn object(kind: &str, name: &str) -> Value {
    let (label, value) = BOOTSTRAPPING;
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {label: value},
            "annotations": {AUTOUPDATE: "true"},
        },
    })
}

fn cluster_role(name: &str, options: &[&str]) -> Value {
    let mut role = object("ClusterRole", name);
    role["rules"] = json!([]);
    for option in options.chunks(2) {
        let [word, tag] = option else { continue };
        let label = format!("{GROUP}/aggregate-{tag}");
        match *word {
            "labelled" => role["metadata"]["labels"][label] = "true".into(),
            _ => {
                let selector = json!({"matchLabels": {label: "true"}});
                role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
            }
        }
    }
    role
}

fn binding((kind, role_kind): (&str, &str), name: &str, role: &str, subjects: &[&str]) -> Value {
    let mut binding = object(kind, name);
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Vec<Value> = subjects.iter().map(|text| subject(text)).collect();
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
    binding
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').unwrap_or(("user", text));
    match (kind, name.split_once('/')) {
        ("account", Some((namespace, name))) => {
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        ("group", _) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
    }
}

fn add_rules(role: &mut Value, words: &[&str]) {
    let rules = match words {
        ["record"] => {
            let groups = ["", "events.k8s.io"];
            json!([{"verbs": ["create", "patch", "update"], "apiGroups": groups, "resources": ["events"]}])
        }
        [verbs, "path", paths] => {
            json!([{"verbs": list(verbs), "nonResourceURLs": list(paths)}])
        }
        [verbs, group, resources, names @ ..] => {
            let group = if *group == "core" { "" } else { group };
            let mut rule =
                json!({"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)});
            if let ["named", names] = names {
                rule["resourceNames"] = list(names).into();
            }
            json!([rule])
        }
        _ => json!([]),
    };
    if let (Some(all), Value::Array(rules)) = (role["rules"].as_array_mut(), rules) {
        all.extend(rules);
    }
}

fn list(words: &str) -> Vec<&str> {
    let words = words.split(',').flat_map(|word| match word {
        "read" => vec!["get", "list", "watch"],
        "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
        "all" => vec![
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
        word => vec![word],
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn id(object: &Value) -> [&str; 3] {
        let meta = &object["metadata"];
        [
            object["kind"].as_str().unwrap(),
            meta["namespace"].as_str().unwrap_or_default(),
            meta["name"].as_str().unwrap(),
        ]
    }

    #[test]
    fn every_line_is_understood() {
        for object in objects()
            .iter()
            .filter(|object| object["roleRef"].is_null())
        {
            let rules = object["rules"].as_array().unwrap();
            let aggregated = !object["aggregationRule"].is_null();
            assert!(
                aggregated || !rules.is_empty(),
                "{:?} grants nothing",
                id(object)
            );
            for rule in rules {
                let known: Rule = serde_json::from_value(rule.clone()).unwrap();
                let paths = known.non_resource_urls.is_empty();
                assert_eq!(paths, !known.resources.is_empty(), "{rule}");
                assert_eq!(serde_json::to_value(&known).unwrap(), *rule);
            }
        }
    }

    #[test]
    fn every_binding_has_its_role_and_every_name_is_there_once() {
        let all: HashSet<[&str; 3]> = objects().iter().map(id).collect();
        assert_eq!(all.len(), objects().len());
        for binding in objects().iter().filter(|one| !one["roleRef"].is_null()) {
            let role = &binding["roleRef"];
            let kind = role["kind"].as_str().unwrap();
            let namespace = match kind {
                "Role" => binding["metadata"]["namespace"].as_str().unwrap(),
                _ => "",
            };
            let wanted = [kind, namespace, role["name"].as_str().unwrap()];
            assert!(all.contains(&wanted), "{wanted:?} of {:?}", id(binding));
        }
    }

    #[test]
    fn the_roles_that_people_know() {
        let rules = rules_of("system:aggregate-to-view");
        let has = |what: &str| {
            rules
                .iter()
                .any(|rule| rule.resources.iter().any(|r| r == what))
        };
        assert!(has("pods/log") && !has("secrets") && !has("roles"));
        assert_eq!(
            serde_json::to_value(rules_of("cluster-admin")).unwrap(),
            json!([
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ])
        );
    }
}
