//! Role based access control: who was granted what by roles and bindings.
//!
//! [`Rbac`] answers from an [`index`] that follows the store's events. What nobody may grant
//! without having it is decided in [`cover`]; the roles that every cluster has stand in
//! [`policy`], and [`reconcile`] puts them into the cluster.

pub mod cover;
pub mod escalation;
pub mod index;
pub mod policy;
pub mod reconcile;
pub mod rule;

use std::sync::Arc;

use peapod_store::{Entry, Key, Resource as Range};

use super::action::Action;
use super::authorizer::{Authorizer, Decision};
use super::user::User;
use crate::storage::{Followed, Meta, Store, View};
use index::{Index, NoRole, Place, RoleRef};
use rule::Rule;

/// The group of the kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The authorizer. Cheap to clone.
#[derive(Clone)]
pub struct Rbac(Arc<Followed<Index>>);

// === impl Rbac ===

impl Rbac {
    /// Decides by the roles and bindings in a store.
    pub fn new(store: Store) -> Self {
        let kinds = [
            "clusterroles",
            "roles",
            "clusterrolebindings",
            "rolebindings",
        ];
        let ranges = kinds.iter().filter_map(|kind| Range::new(GROUP, kind).ok());
        Self(Arc::new(Followed::new(
            store,
            ranges.collect(),
            Index::default(),
        )))
    }

    /// All rules that a user has in a namespace, and the roles that are bound but missing.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<NoRole>) {
        self.0.read().rules_of(user, namespace)
    }

    /// The rules of a role that a binding in a namespace names.
    pub fn rules_of_role(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, NoRole> {
        self.0.read().rules(role, namespace).map(<[Rule]>::to_vec)
    }
}

impl Authorizer for Rbac {
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision {
        let namespace = match action {
            Action::Resource(access) => access.namespace,
            Action::Path { .. } => "",
        };
        let index = self.0.read();
        let (found, missing) = index.find(user, namespace, |grant| {
            let allows = grant.rule.allows(action);
            allows.then(|| format!("RBAC: allowed by {grant}"))
        });
        match found {
            Some(reason) => Decision::Allow(reason),
            None => Decision::NoOpinion(told(&missing)),
        }
    }
}

/// Missing roles as a reason: `RBAC: clusterrole... not found`, or a list of them.
fn told(missing: &[NoRole]) -> String {
    let mut texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
    texts.dedup();
    match texts.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        several => format!("RBAC: [{}]", several.join(", ")),
    }
}

impl View for Index {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn put(&mut self, entry: &Entry<Meta>) {
        let place = place(&entry.key);
        let taken = match is_binding(&entry.key) {
            true => self.put_binding(place, &entry.value),
            false => self.put_role(place, &entry.value),
        };
        if let Err(fault) = taken {
            tracing::error!(key = %entry.key, %fault, "a stored role or binding is malformed; it grants nothing");
            self.remove(&entry.key);
        }
    }

    fn remove(&mut self, key: &Key) {
        match is_binding(key) {
            true => self.remove_binding(place(key)),
            false => self.remove_role(place(key)),
        }
    }
}

fn place(key: &Key) -> Place<'_> {
    Place {
        namespace: key.namespace(),
        name: key.name(),
    }
}

fn is_binding(key: &Key) -> bool {
    key.resource().ends_with("bindings/")
}
