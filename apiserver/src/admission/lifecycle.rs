//! `NamespaceLifecycle`: nothing new in a namespace that is going away or does not exist, and
//! the namespaces that a cluster needs are not deleted.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, entry};
use crate::api::Api;
use crate::status::{GroupResource, Result, Status};
use crate::storage;

/// Namespaces that are not deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

const NAMESPACES: GroupResource<'static> = GroupResource {
    group: "",
    resource: "namespaces",
};

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, _object: &mut Value) -> Result<()> {
        if write.operation != Operation::Create || !write.resource.kind.is_namespaced() {
            return Ok(());
        }
        // Access reviews are questions, not content.
        if write.resource.kind.group == "authorization.k8s.io" {
            return Ok(());
        }
        let Some(namespace) = entry(api, "", "namespaces", "", write.namespace) else {
            return Err(Status::not_found(NAMESPACES, write.namespace));
        };
        let deleted = storage::field(&namespace.value, "metadata.deletionTimestamp");
        let terminating = !deleted.is_empty();
        if terminating && write.subresource.is_empty() {
            let resource = write.resource.kind.group_resource();
            return Err(Status::namespace_terminating(
                resource,
                write.name,
                write.namespace,
            ));
        }
        Ok(())
    }

    async fn validate(&self, _api: &Api, write: &Attributes<'_>, _object: &Value) -> Result<()> {
        let deletes = write.operation == Operation::Delete && write.is_on("", "namespaces");
        if deletes && IMMORTAL.contains(&write.name) {
            return Err(write.forbid("this namespace may not be deleted"));
        }
        Ok(())
    }
}
