//! Lets a volume in use grow: the storage has grown already, its file system or device follows.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;
use peapod_csi::v1::{CapacityRange, NodeExpandVolumeRequest};
use serde_json::{Value, json};

use super::driver::{Capability, Registered};
use super::mount::secrets;
use super::request;
use super::spec::{Claim, Spec};
use crate::core::{Note, Severity};
use crate::pods::Context;

/// After a failure, seconds.
const AGAIN_S: i64 = 30;

/// Lets a published volume grow to what its PersistentVolume says, and tells the claim. A failure is
/// an event; when to try again.
pub async fn expand(
    context: &Context,
    driver: &Arc<Registered>,
    spec: &Spec,
    pod: &Pod,
    path: &Path,
) -> Option<Timestamp> {
    let claim = spec.claim.as_ref()?;
    let grown = match driver.can(Capability::ExpandVolume) && !spec.read_only {
        true => on_node(context, driver, spec, path).await,
        // The driver does all of it where the storage is.
        false => Ok(spec.capacity_bytes),
    };
    let told = match grown {
        Ok(bytes) => tell(context, claim, bytes).await,
        Err(error) => Err(error),
    };
    let volume = &spec.name;
    let (severity, reason, message) = match &told {
        Ok(()) => (
            Severity::Normal,
            "FileSystemResizeSuccessful",
            format!("MountVolume.NodeExpandVolume succeeded for volume \"{volume}\""),
        ),
        Err(error) => (
            Severity::Warning,
            "VolumeResizeFailed",
            format!("NodeExpandVolume failed for volume \"{volume}\" : {error}"),
        ),
    };
    context.notes.about_pod(
        pod,
        Note {
            severity,
            reason: reason.into(),
            message,
            container: None,
        },
    );
    let later = || {
        Timestamp::now()
            .checked_add(SignedDuration::from_secs(AGAIN_S))
            .ok()
    };
    told.err().and_then(|_| later())
}

/// The size that it has then, bytes.
async fn on_node(
    context: &Context,
    driver: &Arc<Registered>,
    spec: &Spec,
    path: &Path,
) -> Result<i64, String> {
    let layout = &context.csi.drivers.layout;
    let stages = driver.can(Capability::StageUnstageVolume);
    let staging = stages.then(|| match spec.block {
        true => layout.staged_block(&spec.name),
        false => layout.staged(&spec.driver, &spec.handle),
    });
    let shown = |path: &Path| layout.shown(driver.view, path);
    let several = driver.can(Capability::SingleNodeMultiWriter);
    let request = NodeExpandVolumeRequest {
        volume_id: spec.handle.clone(),
        volume_path: shown(path),
        capacity_range: Some(CapacityRange {
            required_bytes: spec.capacity_bytes,
            limit_bytes: 0,
        }),
        staging_target_path: staging.map(|path| shown(&path)).unwrap_or_default(),
        volume_capability: Some(request::capability(spec, several, None)),
        secrets: secrets(context, spec.secrets.expand.as_ref()).await?,
    };
    let answer = driver.driver.call(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(answer.capacity_bytes.max(spec.capacity_bytes))
}

async fn tell(context: &Context, claim: &Claim, bytes: i64) -> Result<(), String> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &claim.namespace);
    let what = |e: kube::Error| format!("persistentvolumeclaim \"{}\": {e}", claim.name);
    let present = api.get(&claim.name).await.map_err(what)?;
    let patch = Patch::Merge(grown(&present, bytes));
    let told = api
        .patch_status(&claim.name, &PatchParams::default(), &patch)
        .await;
    told.map(drop).map_err(what)
}

/// What the claim's status becomes: the size, and none of the marks of a growth under way.
fn grown(claim: &PersistentVolumeClaim, bytes: i64) -> Value {
    let status = claim.status.clone().unwrap_or_default();
    let marks = ["FileSystemResizePending", "Resizing"];
    let conditions: Vec<_> = status
        .conditions
        .into_iter()
        .flatten()
        .filter(|condition| !marks.contains(&condition.type_.as_str()))
        .collect();
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "capacity": {"storage": Quantity::from_bytes(bytes).to_text()},
            "conditions": conditions,
            "allocatedResourceStatuses": {"storage": null},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grown_claim_has_its_size_and_no_marks() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "resourceVersion": "7"},
            "status": {
                "capacity": {"storage": "1Gi"},
                "allocatedResourceStatuses": {"storage": "NodeResizePending"},
                "conditions": [
                    {"type": "FileSystemResizePending", "status": "True"},
                    {"type": "ModifyingVolume", "status": "True"}],
            },
        }))
        .unwrap();
        let patch = grown(&claim, 2 << 30);
        assert_eq!(patch["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(patch["status"]["conditions"][0]["type"], "ModifyingVolume");
        assert!(patch["status"]["allocatedResourceStatuses"]["storage"].is_null());
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
