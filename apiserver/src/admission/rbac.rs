//! Nobody grants what they do not have; see [`crate::auth::rbac::escalation`].
//!
//! Upstream checks this where roles and bindings are stored. Here it is a step of admission, the
//! same for all kinds' writes.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::api::Api;
use crate::auth::rbac::GROUP;
use crate::auth::rbac::escalation::{self, Grant};
use crate::status::Result;

pub struct RbacEscalation;

#[async_trait]
impl Plugin for RbacEscalation {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let kind = &write.resource.kind;
        if kind.group != GROUP || write.operation == Operation::Delete {
            return Ok(());
        }
        let grant = Grant {
            user: write.user,
            kind,
            namespace: write.namespace,
            name: write.name,
            new: object,
            old: write.old,
        };
        escalation::check(&api.rbac, &*api.authorizer, &grant)
    }
}
