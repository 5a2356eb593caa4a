//! `PersistentVolumeClaimResize`: a claim grows only if its class allows that.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#persistentvolumeclaimresize>

use async_trait::async_trait;
use peapod_api::quantity::Quantity;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, find};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

const REFUSAL: &str = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

pub struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, claim: &Value) -> Result<()> {
        let on = write.operation == Operation::Update && write.is_on("", "persistentvolumeclaims");
        let Some(old) = write.old.filter(|old| on && grows(old, claim)) else {
            return Ok(());
        };
        if value::text(old, "status.phase") != "Bound" {
            return Err(write.forbid("Only bound persistent volume claims can be expanded"));
        }
        let class = value::text(old, "spec.storageClassName");
        let class = find(api, "storage.k8s.io", "storageclasses", "", class);
        match class.is_some_and(|class| value::truth(&class, "allowVolumeExpansion")) {
            true => Ok(()),
            false => Err(write.forbid(REFUSAL)),
        }
    }
}

fn grows(old: &Value, new: &Value) -> bool {
    let size = |claim| -> Option<Quantity> {
        value::text(claim, "spec.resources.requests.storage")
            .parse()
            .ok()
    };
    size(new) > size(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_compare_by_value() {
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(grows(&claim("1Gi"), &claim("2Gi")));
        assert!(!grows(&claim("1Gi"), &claim("1024Mi")));
        assert!(!grows(&claim("2Gi"), &claim("1Gi")));
    }
}
