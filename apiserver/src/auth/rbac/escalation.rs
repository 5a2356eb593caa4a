//! Nobody grants what they do not have: checks of writes of roles and bindings.
//!
//! Who may `escalate` roles or `bind` a role is exempt, and so are [`MASTERS`].

use serde_json::Value;

use super::index::RoleRef;
use super::rule::Rule;
use super::{GROUP, Rbac, cover};
use crate::auth::action::{Access, Action};
use crate::auth::authorizer::Authorizer;
use crate::auth::user::{MASTERS, User};
use crate::registry::{Kind, value};
use crate::status::{GroupResource, Status};

/// A write of a role or binding.
pub struct Grant<'a> {
    /// Who writes.
    pub user: &'a User,
    /// The kind.
    pub kind: &'a Kind,
    /// The namespace; empty for those of the cluster.
    pub namespace: &'a str,
    /// The name of the object.
    pub name: &'a str,
    /// The object.
    pub new: &'a Value,
    /// The object before, when it is changed.
    pub old: Option<&'a Value>,
}

/// Refuses a write that grants more than its writer has.
pub fn check(rbac: &Rbac, authorizer: &dyn Authorizer, grant: &Grant<'_>) -> Result<(), Status> {
    if grant.user.is_in(MASTERS) {
        return Ok(());
    }
    match grant.kind.plural.as_str() {
        "roles" | "clusterroles" => role(rbac, authorizer, grant),
        _ => binding(rbac, authorizer, grant),
    }
}

fn role(rbac: &Rbac, authorizer: &dyn Authorizer, grant: &Grant<'_>) -> Result<(), Status> {
    let same = |field| {
        grant
            .old
            .is_some_and(|old| old.get(field) == grant.new.get(field))
    };
    if same("rules") && same("aggregationRule") {
        return Ok(());
    }
    let escalate = Access {
        verb: "escalate",
        resource: &grant.kind.plural,
        name: grant.name,
        ..of_group(grant.namespace)
    };
    if may(authorizer, grant.user, escalate) {
        return Ok(());
    }
    let owned = rbac.rules_of(grant.user, grant.namespace).0;
    let wanted = value::at(grant.new, "rules").cloned();
    let wanted: Vec<Rule> = wanted
        .and_then(|rules| serde_json::from_value(rules).ok())
        .unwrap_or_default();
    refuse_missing(grant, &owned, &wanted)?;
    let aggregates = !value::list(grant.new, "aggregationRule.clusterRoleSelectors").is_empty();
    if aggregates && !cover::missing(&owned, &everything()).is_empty() {
        return Err(grant.refuse("must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

fn binding(rbac: &Rbac, authorizer: &dyn Authorizer, grant: &Grant<'_>) -> Result<(), Status> {
    let same = |field| {
        grant
            .old
            .is_some_and(|old| old.get(field) == grant.new.get(field))
    };
    if same("roleRef") && same("subjects") {
        return Ok(());
    }
    let role = RoleRef {
        kind: value::text(grant.new, "roleRef.kind").to_owned(),
        name: value::text(grant.new, "roleRef.name").to_owned(),
    };
    let resource = match role.kind.as_str() {
        "Role" => "roles",
        _ => "clusterroles",
    };
    let bind = Access {
        verb: "bind",
        resource,
        name: &role.name,
        ..of_group(grant.namespace)
    };
    if may(authorizer, grant.user, bind) {
        return Ok(());
    }
    let wanted = rbac.rules_of_role(&role, grant.namespace).map_err(|_| {
        let resource = GroupResource {
            group: GROUP,
            resource,
        };
        Status::not_found(resource, &role.name)
    })?;
    let owned = rbac.rules_of(grant.user, grant.namespace).0;
    refuse_missing(grant, &owned, &wanted)
}

fn of_group(namespace: &str) -> Access<'_> {
    Access {
        group: GROUP,
        version: "v1",
        namespace,
        ..Access::default()
    }
}

fn may(authorizer: &dyn Authorizer, user: &User, access: Access<'_>) -> bool {
    let action = Action::Resource(access);
    authorizer.decide(user, &action).is_allowed()
}

/// Every permission there is.
fn everything() -> [Rule; 2] {
    let star = || vec!["*".to_owned()];
    let resources = Rule {
        verbs: star(),
        api_groups: star(),
        resources: star(),
        ..Rule::default()
    };
    let paths = Rule {
        verbs: star(),
        non_resource_urls: star(),
        ..Rule::default()
    };
    [resources, paths]
}

fn refuse_missing(grant: &Grant<'_>, owned: &[Rule], wanted: &[Rule]) -> Result<(), Status> {
    let missing = cover::missing(owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = cover::compact(&missing)
        .iter()
        .map(cover::describe)
        .collect();
    told.sort_unstable();
    Err(grant.refuse(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        grant.user.name(),
        cover::quoted(grant.user.groups()),
        told.join("\n"),
    )))
}

// === impl Grant ===

impl Grant<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.kind.group_resource(), self.name, why)
    }
}
