//! Admission: what changes or refuses a write after it is decoded and before it is stored.
//!
//! A chain of plugins, in upstream's order. Mutating ones run before validation, validating
//! ones after; each sees what those before it made.

mod access;
mod address_pools;
mod balancer_addresses;
mod certificates;
mod claim_resize;
mod collection;
mod default_tolerations;
pub mod expressions;
mod ingress_class;
mod lifecycle;
mod limit_ranger;
mod matching;
mod node_restriction;
pub mod pod_security;
pub mod policy;
mod priority;
pub mod quota;
mod rbac;
mod request;
mod runtime_class;
mod service_account;
mod storage_class;
mod storage_protection;
pub mod topology_labels;
mod webhook;

use async_trait::async_trait;
use serde_json::Value;

use crate::api::Api;
use crate::auth::user::User;
use crate::registry::Resource;
use crate::status::{Result, Status};
use crate::storage;

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Someone speaks with it: exec, attach, port-forward, proxy.
    Connect,
}

/// A write, as admission sees it; the object itself goes beside.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// What is done.
    pub operation: Operation,
    /// The kind.
    pub resource: &'a Resource,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Who writes.
    pub user: &'a User,
    /// The object before, on updates and deletions.
    pub old: Option<&'a Value>,
    /// Whether nothing is stored in the end.
    pub dry_run: bool,
}

/// One step of admission.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Changes the object, or refuses it.
    async fn mutate(&self, _api: &Api, _write: &Attributes<'_>, _object: &mut Value) -> Result<()> {
        Ok(())
    }

    /// Refuses the object, or lets it pass.
    async fn validate(&self, _api: &Api, _write: &Attributes<'_>, _object: &Value) -> Result<()> {
        Ok(())
    }

    /// Changes the object in ways that nobody knows before, and says whether it did: the others
    /// then look at it once more.
    async fn rewrite(
        &self,
        _api: &Api,
        _write: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<bool> {
        Ok(false)
    }
}

/// The plugins, in their order.
pub struct Chain(Vec<Box<dyn Plugin>>);

// === impl Attributes ===

impl Attributes<'_> {
    /// Whether this is a write of objects of a resource, not of a subresource.
    pub fn is_on(&self, group: &str, plural: &str) -> bool {
        let kind = &self.resource.kind;
        self.subresource.is_empty() && kind.group == group && kind.plural == plural
    }

    /// Whether an object of a resource is being created.
    pub fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create && self.is_on(group, plural)
    }

    fn log(&self, refusal: &Status) {
        let resource = self.resource.kind.group_resource();
        tracing::debug!(user = self.user.name(), %resource, name = self.name, %refusal, "admission refused a write");
    }

    /// 403
    pub fn forbid(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource.kind.group_resource(), self.name, why)
    }
}

// === impl Chain ===

impl Chain {
    /// The plugins that a cluster relies on, as its operator configures them.
    pub fn standard(pod_security: pod_security::config::PodSecurityConfig) -> Self {
        Self(vec![
            Box::new(lifecycle::NamespaceLifecycle),
            Box::new(node_restriction::NodeRestriction),
            Box::new(topology_labels::PodTopologyLabels),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(pod_security::PodSecurity(pod_security)),
            Box::new(priority::Priority),
            Box::new(default_tolerations::DefaultTolerationSeconds),
            Box::new(storage_class::DefaultStorageClass),
            Box::new(rbac::RbacEscalation),
            Box::new(certificates::Certificates),
            Box::new(storage_protection::StorageObjectInUseProtection),
            Box::new(claim_resize::PersistentVolumeClaimResize),
            Box::new(runtime_class::RuntimeClass),
            Box::new(ingress_class::DefaultIngressClass),
            Box::new(address_pools::AddressPools),
            Box::new(balancer_addresses::BalancerAddresses),
            Box::new(policy::Mutating::default()),
            Box::new(webhook::Mutating::default()),
            Box::new(policy::Validating::default()),
            Box::new(webhook::Validating::default()),
        ])
    }

    /// Runs the mutating steps.
    pub async fn mutate(
        &self,
        api: &Api,
        write: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<()> {
        let mut again = false;
        for plugin in &self.0 {
            let outcome = plugin.mutate(api, write, object).await;
            outcome.inspect_err(|refusal| write.log(refusal))?;
            let outcome = plugin.rewrite(api, write, object).await;
            again |= outcome.inspect_err(|refusal| write.log(refusal))?;
        }
        for plugin in self.0.iter().filter(|_| again) {
            let outcome = plugin.mutate(api, write, object).await;
            outcome.inspect_err(|refusal| write.log(refusal))?;
        }
        Ok(())
    }

    /// Runs the validating steps.
    pub async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        for plugin in &self.0 {
            let outcome = plugin.validate(api, write, object).await;
            outcome.inspect_err(|refusal| write.log(refusal))?;
        }
        Ok(())
    }
}

/// An object of the store: what plugins look up.
fn entry(
    api: &Api,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Option<storage::Entry> {
    let resource = api.registry.find(group, "v1", plural)?;
    let key = storage::key(&resource.kind, namespace, name).ok()?;
    api.store.get(&key)
}

/// The same, decoded.
pub fn find(api: &Api, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let entry = entry(api, group, plural, namespace, name)?;
    serde_json::from_slice(&entry.value).ok()
}

/// All objects of a resource, decoded. For small collections: classes.
fn all(api: &Api, group: &str, plural: &str) -> Vec<Value> {
    decoded(api, group, plural, peapod_store::Scope::All)
}

/// The objects of a resource in a namespace, decoded. For small collections: limits, quotas.
fn in_namespace(api: &Api, group: &str, plural: &str, namespace: &str) -> Vec<Value> {
    decoded(
        api,
        group,
        plural,
        peapod_store::Scope::Namespace(namespace),
    )
}

/// Those of all objects of a resource of which a field is `true`, decoded.
fn all_true(api: &Api, group: &str, plural: &str, field: &str) -> Vec<Value> {
    let wanted = |entry: &storage::Entry| storage::field(&entry.value, field) == "true";
    decoded_if(api, group, plural, peapod_store::Scope::All, wanted)
}

fn decoded(api: &Api, group: &str, plural: &str, scope: peapod_store::Scope<'_>) -> Vec<Value> {
    decoded_if(api, group, plural, scope, |_| true)
}

fn decoded_if(
    api: &Api,
    group: &str,
    plural: &str,
    scope: peapod_store::Scope<'_>,
    wanted: impl Fn(&storage::Entry) -> bool,
) -> Vec<Value> {
    let Some(resource) = api.registry.find(group, "v1", plural) else {
        return Vec::new();
    };
    let snapshot = api.store.snapshot(&storage::range(&resource.kind));
    let entries = snapshot.range(scope, None).filter(|entry| wanted(entry));
    entries
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect()
}
