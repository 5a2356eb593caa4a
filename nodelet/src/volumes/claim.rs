//! `persistentVolumeClaim`: the directory of the host that a bound PersistentVolume stands for.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use peapod_api::k8s_openapi;

use super::local_class;

/// A volume's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Whether containers may only read it.
    pub read_only: bool,
    /// Whether the node makes the directory: its class is the node's own.
    pub create: bool,
    /// Whether it is a block device rather than a directory.
    pub block: bool,
}

/// The volume that a claim is bound to, by name; or why there is none.
pub fn bound_volume(name: &str, claim: Option<&PersistentVolumeClaim>) -> Result<String, String> {
    let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    match volume.filter(|volume| !volume.is_empty()) {
        Some(volume) if phase == Some("Bound") => Ok(volume),
        _ => Err(format!("persistentvolumeclaim \"{name}\" is not bound yet")),
    }
}

/// What a PersistentVolume is on this node.
pub fn of(volume: &PersistentVolume, read_only: bool) -> Result<Claim, String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume
        .spec
        .as_ref()
        .ok_or_else(|| format!("volume {name} has no spec"))?;
    let path = match (&spec.local, &spec.host_path) {
        (Some(local), _) => &local.path,
        (None, Some(host)) => &host.path,
        (None, None) => {
            return Err(format!(
                "volume {name} is of a type that this node cannot mount; it can: csi, local, hostPath"
            ));
        }
    };
    let only = spec
        .access_modes
        .iter()
        .flatten()
        .all(|mode| mode == "ReadOnlyMany");
    let only = only
        && spec
            .access_modes
            .as_ref()
            .is_some_and(|modes| !modes.is_empty());
    Ok(Claim {
        path: PathBuf::from(path),
        read_only: read_only || only,
        create: local_class::is_ours(volume),
        block: spec.volume_mode.as_deref() == Some("Block"),
    })
}
