//! `StorageObjectInUseProtection`: claims, volumes and attribute classes are born with the
//! finalizer that holds them while they are in use. Controllers take it away.

use async_trait::async_trait;
use peapod_api::storage::{CLAIM_PROTECTION, VOLUME_PROTECTION};
use serde_json::{Value, json};

use super::{Attributes, Plugin};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    async fn mutate(&self, _api: &Api, write: &Attributes<'_>, object: &mut Value) -> Result<()> {
        let finalizer = match () {
            () if write.creates("", "persistentvolumeclaims") => CLAIM_PROTECTION,
            () if write.creates("", "persistentvolumes") => VOLUME_PROTECTION,
            () => return Ok(()),
        };
        let present = value::list(object, "metadata.finalizers");
        if present.iter().any(|one| one == finalizer) {
            return Ok(());
        }
        match value::entry(object, "metadata.finalizers") {
            Value::Array(finalizers) => finalizers.push(finalizer.into()),
            other => *other = json!([finalizer]),
        }
        Ok(())
    }
}
