//! Roles and bindings, found by who asks: what an authorizer reads for every request.
//!
//! Pure: objects go in as they are put and removed, answers come out. Bindings are found by
//! subject, so that a decision costs what the user's own bindings grant, however many others
//! there are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::rule::Rule;
use crate::auth::tokens;
use crate::auth::user::User;

/// Roles and bindings.
#[derive(Debug, Default)]
pub struct Index {
    /// Rules of the ClusterRoles, by name.
    cluster_roles: Named<Arc<[Rule]>>,
    /// Rules of the Roles, by namespace and name.
    roles: Named<Named<Arc<[Rule]>>>,
    cluster_bindings: Bindings,
    /// RoleBindings, by namespace.
    bindings: Named<Bindings>,
}

type Named<T> = HashMap<Box<str>, T>;

/// The bindings of the cluster or of a namespace.
#[derive(Debug, Default)]
struct Bindings {
    by_name: Named<Arc<Binding>>,
    /// Of users, and of service accounts under their user names.
    users: Named<Vec<Arc<Binding>>>,
    groups: Named<Vec<Arc<Binding>>>,
}

/// Where an object is: its namespace, which is empty for those of the cluster, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The namespace; empty for the cluster's.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    namespace: Box<str>,
    name: Box<str>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// What a binding grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// To whom a binding grants it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Subject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

/// A rule that a user has, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The rule.
    pub rule: &'a Rule,
    binding: &'a Binding,
    subject: &'a Subject,
}

/// A role that a binding names and that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}.rbac.authorization.k8s.io {name:?} not found", .kind.to_lowercase())]
pub struct NoRole {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct RoleObject {
    rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    #[serde(default)]
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

// === impl Index ===

impl Index {
    /// Takes in a Role or ClusterRole, as its JSON.
    pub fn put_role(&mut self, place: Place<'_>, json: &[u8]) -> serde_json::Result<()> {
        let role: RoleObject = serde_json::from_slice(json)?;
        let rules = role.rules.unwrap_or_default().into();
        match place.namespace {
            "" => self.cluster_roles.insert(place.name.into(), rules),
            namespace => {
                let roles = self.roles.entry(namespace.into()).or_default();
                roles.insert(place.name.into(), rules)
            }
        };
        Ok(())
    }

    /// Forgets a Role or ClusterRole.
    pub fn remove_role(&mut self, place: Place<'_>) {
        match place.namespace {
            "" => self.cluster_roles.remove(place.name),
            namespace => self
                .roles
                .get_mut(namespace)
                .and_then(|roles| roles.remove(place.name)),
        };
    }

    /// Takes in a RoleBinding or ClusterRoleBinding, as its JSON.
    pub fn put_binding(&mut self, place: Place<'_>, json: &[u8]) -> serde_json::Result<()> {
        let object: BindingObject = serde_json::from_slice(json)?;
        let binding = Binding {
            namespace: place.namespace.into(),
            name: place.name.into(),
            role: object.role_ref,
            subjects: object.subjects.unwrap_or_default(),
        };
        self.remove_binding(place);
        match place.namespace {
            "" => self.cluster_bindings.put(binding),
            namespace => self
                .bindings
                .entry(namespace.into())
                .or_default()
                .put(binding),
        }
        Ok(())
    }

    /// Forgets a RoleBinding or ClusterRoleBinding.
    pub fn remove_binding(&mut self, place: Place<'_>) {
        match place.namespace {
            "" => self.cluster_bindings.remove(place.name),
            namespace => {
                if let Some(bindings) = self.bindings.get_mut(namespace) {
                    bindings.remove(place.name);
                }
            }
        }
    }

    /// The rules of the role that a binding in `namespace` names.
    pub fn rules(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], NoRole> {
        let found = match role.kind.as_str() {
            "Role" => self
                .roles
                .get(namespace)
                .and_then(|roles| roles.get(role.name.as_str())),
            _ => self.cluster_roles.get(role.name.as_str()),
        };
        found.map(|rules| &**rules).ok_or_else(|| NoRole {
            kind: role.kind.clone(),
            name: role.name.clone(),
        })
    }

    /// Shows `visit` every rule that a user has in a namespace (and, when it is empty, in the
    /// cluster only), until it has what it wants. Returns what it found, and which roles are
    /// missing.
    pub fn find<'a, T>(
        &'a self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(Grant<'a>) -> Option<T>,
    ) -> (Option<T>, Vec<NoRole>) {
        let local = self.bindings.get(namespace);
        let local = local.filter(|_| !namespace.is_empty());
        let mut missing = Vec::new();
        for bindings in [Some(&self.cluster_bindings), local].into_iter().flatten() {
            for (binding, subject) in bindings.of(user) {
                let rules = match self.rules(&binding.role, namespace) {
                    Ok(rules) => rules,
                    Err(role) => {
                        missing.push(role);
                        continue;
                    }
                };
                for rule in rules {
                    let grant = Grant {
                        rule,
                        binding,
                        subject,
                    };
                    if let Some(found) = visit(grant) {
                        return (Some(found), missing);
                    }
                }
            }
        }
        (None, missing)
    }

    /// All rules that a user has in a namespace.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<NoRole>) {
        let mut all = Vec::new();
        let (_, missing) = self.find(user, namespace, |grant| {
            all.push(grant.rule.clone());
            None::<()>
        });
        (all, missing)
    }
}

// === impl Bindings ===

impl Bindings {
    fn put(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        for subject in &binding.subjects {
            let (map, name) = self.place(&binding, subject);
            let found = map.entry(name).or_default();
            if !found.iter().any(|one| Arc::ptr_eq(one, &binding)) {
                found.push(binding.clone());
            }
        }
        self.by_name.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.by_name.remove(name) else {
            return;
        };
        for subject in &binding.subjects {
            let (map, name) = self.place(&binding, subject);
            if let Some(found) = map.get_mut(&name) {
                found.retain(|one| !Arc::ptr_eq(one, &binding));
                if found.is_empty() {
                    map.remove(&name);
                }
            }
        }
    }

    /// Under which map and name a subject's binding is found.
    fn place(
        &mut self,
        binding: &Binding,
        subject: &Subject,
    ) -> (&mut Named<Vec<Arc<Binding>>>, Box<str>) {
        match subject.kind.as_str() {
            "Group" => (&mut self.groups, subject.name.as_str().into()),
            _ => (&mut self.users, subject.user_name(binding).into()),
        }
    }

    /// The bindings of a user and of the user's groups, each with the subject that it names.
    fn of<'a>(&'a self, user: &User) -> impl Iterator<Item = (&'a Binding, &'a Subject)> {
        let own = self.users.get(user.name()).into_iter().flatten();
        let own = own.filter_map(|binding| {
            let subject = binding.subjects.iter();
            let mut subject =
                subject.filter(|one| one.kind != "Group" && one.user_name(binding) == user.name());
            Some((&**binding, subject.next()?))
        });
        let groups = user.groups().iter();
        let of_groups = groups.flat_map(|group| {
            let found = self.groups.get(group.as_str()).into_iter().flatten();
            found.filter_map(move |binding| {
                let mut subject = binding.subjects.iter();
                let subject = subject.find(|one| one.kind == "Group" && one.name == *group)?;
                Some((&**binding, subject))
            })
        });
        own.chain(of_groups).collect::<Vec<_>>().into_iter()
    }
}

// === impl Subject ===

impl Subject {
    /// The name under which a user or service account authenticates.
    fn user_name(&self, binding: &Binding) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => {
                let namespace = match self.namespace.as_str() {
                    "" => &binding.namespace,
                    own => own,
                };
                tokens::subject(namespace, &self.name)
            }
            _ => self.name.clone(),
        }
    }
}

// === impl Grant ===

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding {
            namespace,
            name,
            role,
            ..
        } = self.binding;
        match &**namespace {
            "" => write!(f, "ClusterRoleBinding {name:?}")?,
            namespace => write!(f, "RoleBinding \"{name}/{namespace}\"")?,
        }
        write!(
            f,
            " of {} {:?} to {}",
            role.kind, role.name, self.subject.kind
        )?;
        match self.subject.kind.as_str() {
            "ServiceAccount" => {
                let own = self.subject.namespace.as_str();
                let place = if own.is_empty() { namespace } else { own };
                write!(f, " \"{}/{place}\"", self.subject.name)
            }
            _ => write!(f, " {:?}", self.subject.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::action::{Access, Action};
    use serde_json::json;

    fn place<'a>(namespace: &'a str, name: &'a str) -> Place<'a> {
        Place { namespace, name }
    }

    fn bytes(value: serde_json::Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    fn index() -> Index {
        let mut index = Index::default();
        let reads = |what| {
            bytes(json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [what]}]}))
        };
        let put = |index: &mut Index, namespace, name, role: (&str, &str), subjects| {
            let binding =
                json!({"roleRef": {"kind": role.0, "name": role.1}, "subjects": subjects});
            index
                .put_binding(place(namespace, name), &bytes(binding))
                .unwrap();
        };
        index.put_role(place("", "reader"), &reads("pods")).unwrap();
        index
            .put_role(place("a", "local"), &reads("secrets"))
            .unwrap();
        let all = json!([{"kind": "Group", "name": "g"}, {"kind": "User", "name": "u"}]);
        put(&mut index, "", "everywhere", ("ClusterRole", "reader"), all);
        let account = json!([{"kind": "ServiceAccount", "name": "robot"}]);
        put(&mut index, "a", "here", ("Role", "local"), account.clone());
        put(&mut index, "b", "gone", ("Role", "nothing"), account);
        index
    }

    /// By what someone may get a resource in a namespace; what is missing when nothing allows it.
    fn asked(index: &Index, user: &User, namespace: &str, resource: &str) -> String {
        let action = Action::Resource(Access {
            verb: "get",
            resource,
            namespace,
            ..Access::default()
        });
        let (found, missing) = index.find(user, namespace, |grant| {
            grant.rule.allows(&action).then(|| grant.to_string())
        });
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        found.unwrap_or_else(|| format!("no: {}", missing.join(", ")))
    }

    #[test]
    fn grants_are_found_and_named_as_upstream() {
        let index = index();
        let user = User::authenticated("u", ["other"]);
        let member = User::authenticated("m", ["g"]);
        let robot = User::authenticated("system:serviceaccount:a:robot", [""; 0]);
        for (user, namespace, resource, expected) in [
            (
                &user,
                "a",
                "pods",
                r#"ClusterRoleBinding "everywhere" of ClusterRole "reader" to User "u""#,
            ),
            (
                &member,
                "",
                "pods",
                r#"ClusterRoleBinding "everywhere" of ClusterRole "reader" to Group "g""#,
            ),
            (&user, "a", "secrets", "no: "),
            (
                &robot,
                "a",
                "secrets",
                r#"RoleBinding "here/a" of Role "local" to ServiceAccount "robot/a""#,
            ),
            (&robot, "", "secrets", "no: "),
            (&robot, "b", "secrets", "no: "),
        ] {
            assert_eq!(asked(&index, user, namespace, resource), expected);
        }
        let other = User::authenticated("system:serviceaccount:b:robot", [""; 0]);
        assert_eq!(
            asked(&index, &other, "b", "secrets"),
            r#"no: role.rbac.authorization.k8s.io "nothing" not found"#
        );
    }

    #[test]
    fn what_is_removed_grants_nothing() {
        let mut index = index();
        let user = User::authenticated("u", [""; 0]);
        index.remove_role(place("", "reader"));
        assert_eq!(
            asked(&index, &user, "", "pods"),
            r#"no: clusterrole.rbac.authorization.k8s.io "reader" not found"#
        );
        index.remove_binding(place("", "everywhere"));
        assert_eq!(asked(&index, &user, "", "pods"), "no: ");
        assert!(index.cluster_bindings.users.is_empty());
        assert!(index.cluster_bindings.groups.is_empty());
    }

    #[test]
    fn a_binding_that_changes_drops_who_is_gone() {
        let mut index = index();
        let to_nobody = json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}});
        index
            .put_binding(place("", "everywhere"), &bytes(to_nobody))
            .unwrap();
        let user = User::authenticated("u", ["g"]);
        assert_eq!(asked(&index, &user, "", "pods"), "no: ");
    }
}
