//! ReplicaSet and ReplicationController: what differs between them.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use peapod_api::selector::{Selector, SelectorError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{merge, owner};
use crate::shell::context::Informers;
use crate::shell::informer::Kind;
use crate::shell::write::{self, Scope};
use crate::shell::{Context, Informer, Result};

/// A kind that keeps a number of pods.
pub trait Replicated: Kind + Scope {
    /// Upstream's name of the loop.
    const NAME: &'static str;
    /// Upstream's name of the source of its events.
    const COMPONENT: &'static str;

    /// The objects of the kind.
    fn informer(informers: &Informers) -> &Arc<Informer<Self>>;

    /// The selector of its pods.
    fn selector(&self) -> Result<Selector, SelectorError>;

    /// The object as the core knows it.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    /// The uids of this set and of those with the same owner: their pods tell which nodes are
    /// crowded.
    fn siblings(&self, informers: &Informers) -> Vec<String>;

    /// Writes the status.
    fn write_status(
        &self,
        ctx: &Context,
        status: ReplicaSetStatus,
    ) -> impl Future<Output = Result<()>> + Send;
}

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";

    fn informer(informers: &Informers) -> &Arc<Informer<Self>> {
        &informers.replica_sets
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        Selector::from_label_selector(&self.spec.selector)
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn siblings(&self, informers: &Informers) -> Vec<String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        let owner = owner::controller_of(&self.metadata);
        let sets = informers.replica_sets.in_namespace(namespace);
        let siblings = sets.iter().filter(|sibling| match owner {
            Some(owner) => owner::is_controlled_by(&sibling.metadata, &owner.uid),
            None => sibling.metadata.uid == self.metadata.uid,
        });
        siblings
            .filter_map(|sibling| sibling.metadata.uid.clone())
            .collect()
    }

    async fn write_status(&self, ctx: &Context, status: ReplicaSetStatus) -> Result<()> {
        write::status(ctx, self, self.status.as_ref(), &status).await?;
        Ok(())
    }
}

impl Replicated for ReplicationController {
    const NAME: &'static str = "replicationcontroller";
    const COMPONENT: &'static str = "replication-controller";

    fn informer(informers: &Informers) -> &Arc<Informer<Self>> {
        &informers.replication_controllers
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // The API demands one; without, nothing must be taken for everything.
        Ok(match selector {
            Some(labels) if !labels.is_empty() => Selector::from_map(labels),
            _ => Selector::nothing(),
        })
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: LabelSelector {
                    match_labels: spec.selector,
                    match_expressions: None,
                },
                template: spec.template,
            },
            status: self.status.as_ref().map(same_fields),
        })
    }

    fn siblings(&self, _: &Informers) -> Vec<String> {
        self.metadata.uid.clone().into_iter().collect()
    }

    async fn write_status(&self, ctx: &Context, status: ReplicaSetStatus) -> Result<()> {
        let status: ReplicationControllerStatus = same_fields(&status);
        write::status(ctx, self, self.status.as_ref(), &status).await?;
        Ok(())
    }
}

/// One status as the other, whose fields have the same names; what it does not have is left out.
fn same_fields<A: Serialize, B: DeserializeOwned + Default>(status: &A) -> B {
    serde_json::from_value(merge::to_value(status)).unwrap_or_default()
}
