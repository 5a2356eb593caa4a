//! `rbac.authorization.k8s.io/v1`: roles and bindings, of a namespace and of the cluster.

use peapod_api::names;
use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, checks, value};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    let common = |kind: Kind| {
        let kind = kind.name_rule(names::path_segment);
        kind.create_on_update().conditional_update()
    };
    let role = |kind: Kind| common(kind).columns(role_columns()).rules(Roles);
    let binding = |kind: Kind, cluster| {
        common(kind)
            .columns(binding_columns())
            .rules(Bindings { cluster })
    };
    let cluster = |kind: &str, plural: &str| Kind::cluster(GROUP, "v1", kind, plural);
    let local = |kind: &str, plural: &str| Kind::namespaced(GROUP, "v1", kind, plural);
    vec![
        binding(cluster("ClusterRoleBinding", "clusterrolebindings"), true),
        role(cluster("ClusterRole", "clusterroles")),
        binding(local("RoleBinding", "rolebindings"), false),
        role(local("Role", "roles")),
    ]
}

fn role_columns() -> Vec<Column> {
    let created = Column::path("Created At", "date", "metadata.creationTimestamp");
    vec![Column::name(), created]
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::computed("Role", "string", |binding, _| {
            let role = &binding["roleRef"];
            let (kind, name) = (value::text(role, "kind"), value::text(role, "name"));
            format!("{kind}/{name}").into()
        }),
        Column::age(),
        Column::computed("Users", "string", |binding, _| {
            subjects(binding, "User").into()
        })
        .wide(),
        Column::computed("Groups", "string", |binding, _| {
            subjects(binding, "Group").into()
        })
        .wide(),
        Column::computed("ServiceAccounts", "string", |binding, _| {
            subjects(binding, "ServiceAccount").into()
        })
        .wide(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let all = value::list(binding, "subjects").iter();
    let of_kind = all.filter(|subject| value::text(subject, "kind") == kind);
    let names = of_kind.map(|subject| match kind {
        "ServiceAccount" => {
            format!(
                "{}/{}",
                value::text(subject, "namespace"),
                value::text(subject, "name")
            )
        }
        _ => value::text(subject, "name").to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

struct Roles;

impl Rules for Roles {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let aggregation = root.at("aggregationRule");
        if aggregation.is_set() {
            let selectors = aggregation.at("clusterRoleSelectors");
            if selectors.is_empty() {
                let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                selectors.missing(errors, why);
            }
            for selector in selectors.items() {
                checks::label_selector(&selector, errors);
            }
        }
        for rule in root.at("rules").items() {
            let (verbs, urls) = (rule.at("verbs"), rule.at("nonResourceURLs"));
            if verbs.is_empty() {
                verbs.missing(errors, "verbs must contain at least one value");
            }
            let (groups, resources) = (rule.at("apiGroups"), rule.at("resources"));
            if !urls.is_empty() {
                if !value::text(object, "metadata.namespace").is_empty() {
                    let why = "namespaced rules cannot apply to non-resource URLs";
                    urls.invalid(errors, why);
                }
                if !groups.is_empty() || !resources.is_empty() {
                    let why = "rules cannot apply to both regular resources and non-resource URLs";
                    urls.invalid(errors, why);
                }
                continue;
            }
            if groups.is_empty() {
                let why = "resource rules must supply at least one api group";
                groups.missing(errors, why);
            }
            if resources.is_empty() {
                let why = "resource rules must supply at least one resource";
                resources.missing(errors, why);
            }
        }
    }
}

struct Bindings {
    cluster: bool,
}

impl Rules for Bindings {
    fn defaults(&self, object: &mut Value) {
        if value::text(object, "roleRef.apiGroup").is_empty() {
            value::set(object, "roleRef.apiGroup", GROUP);
        }
        let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
        for subject in subjects.into_iter().flatten() {
            let group = matches!(value::text(subject, "kind"), "User" | "Group");
            if group && value::text(subject, "apiGroup").is_empty() {
                subject["apiGroup"] = GROUP.into();
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let role = root.at("roleRef");
        role.at("apiGroup").one_of(errors, &[GROUP]);
        let kinds: &[&str] = match self.cluster {
            true => &["ClusterRole"],
            false => &["ClusterRole", "Role"],
        };
        role.at("kind").one_of(errors, kinds);
        role.at("name").require_name(errors, names::path_segment);
        for subject in root.at("subjects").items() {
            let (kind, group) = (subject.at("kind"), subject.at("apiGroup"));
            let name = subject.at("name");
            name.required(errors);
            match kind.text() {
                "ServiceAccount" => {
                    name.follows(errors, names::dns_subdomain);
                    if !group.is_empty() {
                        group.one_of(errors, &[""]);
                    }
                    if self.cluster {
                        subject.at("namespace").required(errors);
                    }
                }
                "User" | "Group" => group.one_of(errors, &[GROUP]),
                _ => kind.one_of(errors, &["Group", "ServiceAccount", "User"]),
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["roleRef"] != old["roleRef"] {
            At::root(new)
                .at("roleRef")
                .invalid(errors, "cannot change roleRef");
        }
    }
}
