//! The node authorizer: a node reads what its own pods need, and writes what is its own.
//!
//! What a node may do at all stands in the ClusterRole `system:node`. Some of that is narrowed to
//! what belongs to the node; [`rules`] says how, without IO, and names what must be looked up:
//! whether a pod of the node uses an object, or a `BgpPeer` that selects the node. The store's index
//! finds the node's pods, so there is no graph to keep: a write is seen by the next question.

mod pod;
pub mod rules;

use std::sync::Arc;

use peapod_api::net::{BGP_SECRET_NAMESPACE, GROUP};
use peapod_store::Scope;
use serde_json::Value;

use super::action::Action;
use super::authorizer::{Authorizer, Decision};
use super::rbac::policy;
use super::rbac::rule::Rule;
use super::user::User;
use crate::registry::{Registry, Resource, checks, value};
use crate::storage::{self, Entry, FieldSlots, Store};
use pod::Used;
use rules::{Needs, Own};

/// The authorizer.
pub struct Nodes {
    store: Store,
    registry: Arc<Registry>,
    rules: Vec<Rule>,
}

// === impl Nodes ===

impl Nodes {
    /// Decides by the objects in a store.
    pub fn new(store: Store, registry: Arc<Registry>) -> Self {
        Self {
            store,
            registry,
            rules: policy::rules_of("system:node"),
        }
    }

    fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.registry.find(group, "v1", plural)
    }

    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = self.resource(group, plural)?;
        let key = storage::key(&resource.kind, namespace, name).ok()?;
        serde_json::from_slice(&self.store.get(&key)?.value).ok()
    }

    /// Whether a pod of the node uses an object of its namespace.
    fn uses(&self, node: &str, used: Used, namespace: &str, name: &str) -> bool {
        let Some(pods) = self.resource("", "pods") else {
            return false;
        };
        let Some(slot) = FieldSlots::of(&pods.kind).find("spec.nodeName") else {
            return false;
        };
        let snapshot = self.store.snapshot(&storage::range(&pods.kind));
        let here = snapshot.select(storage::field_index(slot), node);
        let mut here = here.filter(|entry| entry.key.namespace() == namespace);
        here.any(|entry| mentions(entry, name) && pod::uses(&entry.value, used, name))
    }

    /// Whether a `BgpPeer` that selects the node names a Secret for the password of its sessions.
    fn signs_with(&self, node: &str, secret: &str) -> bool {
        let Some(peers) = self.resource(GROUP, "bgppeers") else {
            return false;
        };
        let snapshot = self.store.snapshot(&storage::range(&peers.kind));
        let entries = snapshot.range(Scope::All, None);
        let mut naming = entries
            .filter(|entry| mentions(entry, secret))
            .filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
            .filter(|peer| value::text(peer, "spec.auth.secretRef.name") == secret)
            .peekable();
        // Most secrets are no password of a peer: then no node is looked at.
        if naming.peek().is_none() {
            return false;
        }
        let Some(node) = self.get("", "nodes", "", node) else {
            return false;
        };
        let labels = value::at(&node, "metadata.labels").unwrap_or(&Value::Null);
        naming.any(|peer| match value::at(&peer, "spec.nodeSelector") {
            None | Some(Value::Null) => true,
            Some(selector) => checks::selects(selector, labels),
        })
    }

    /// Whether a volume that a pod of the node uses names a Secret for its storage driver.
    fn mounts_with(&self, node: &str, namespace: &str, secret: &str) -> bool {
        let Some(volumes) = self.resource("", "persistentvolumes") else {
            return false;
        };
        let snapshot = self.store.snapshot(&storage::range(&volumes.kind));
        let naming = snapshot
            .range(Scope::All, None)
            .filter(|entry| mentions(entry, secret))
            .filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
            .filter(|volume| pod::is_secret_of_driver(volume, namespace, secret))
            .map(|volume| value::text(&volume, "metadata.name").to_owned());
        naming
            .collect::<Vec<_>>()
            .iter()
            .any(|volume| self.is_related(node, &Needs::Volume(volume)))
    }

    fn is_related(&self, node: &str, needs: &Needs<'_>) -> bool {
        match *needs {
            Needs::Used {
                used,
                namespace,
                name,
            } => {
                self.uses(node, used, namespace, name)
                    || used == Used::Secret
                        && namespace == BGP_SECRET_NAMESPACE
                        && self.signs_with(node, name)
                    || used == Used::Secret && self.mounts_with(node, namespace, name)
            }
            Needs::Volume(name) => {
                let Some(volume) = self.get("", "persistentvolumes", "", name) else {
                    return false;
                };
                let claim = |field| value::text(&volume, field);
                let (namespace, claim) = (
                    claim("spec.claimRef.namespace"),
                    claim("spec.claimRef.name"),
                );
                let bound = self.get("", "persistentvolumeclaims", namespace, claim);
                bound.is_some_and(|bound| value::text(&bound, "spec.volumeName") == name)
                    && self.uses(node, Used::Claim, namespace, claim)
            }
            Needs::Attachment(name) => {
                let found = self.get("storage.k8s.io", "volumeattachments", "", name);
                found.is_some_and(|one| value::text(&one, "spec.nodeName") == node)
            }
        }
    }
}

/// Whether the pod's JSON holds the name as a whole text, so that reading it may be worth while.
/// Ephemeral volumes' claims are named after the pod.
fn mentions(entry: &Entry, name: &str) -> bool {
    let text = &entry.value;
    let own = name.starts_with(entry.key.name());
    own || memchr::memmem::find(text, format!("{name:?}").as_bytes()).is_some()
}

impl Authorizer for Nodes {
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision {
        let Some(node) = rules::node_of(user) else {
            return Decision::NoOpinion(String::new());
        };
        let unrelated = || {
            Decision::NoOpinion(format!(
                "no relationship found between node '{node}' and this object"
            ))
        };
        let own = match action {
            Action::Resource(access) => rules::judge(node, access),
            Action::Path { .. } => Own::ByRole,
        };
        match own {
            Own::No(why) => Decision::NoOpinion(why),
            Own::If(needs) if !self.is_related(node, &needs) => unrelated(),
            Own::If(_) | Own::Yes | Own::ByRole => {
                match self.rules.iter().any(|rule| rule.allows(action)) {
                    true => Decision::Allow(String::new()),
                    false => Decision::NoOpinion(String::new()),
                }
            }
        }
    }
}
