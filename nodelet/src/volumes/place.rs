//! Puts volumes in place on the node. Blocking: file system work throughout.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use peapod_api::k8s_openapi;

use super::{
    Content, Error, Located, Volume, atomic, empty_dir, host_path, image, mounts, ownership,
};
use crate::core::spec_of;

/// The group that may use the volumes, and when what is there already is given to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// `fsGroup`
    pub id: Option<u32>,
    /// `fsGroupChangePolicy: OnRootMismatch`
    pub only_if_wrong: bool,
}

impl Group {
    /// Reads a pod's declaration.
    pub fn of(pod: &Pod) -> Self {
        let security = spec_of(pod).security_context.as_ref();
        let id = security.and_then(|s| s.fs_group);
        let policy = security.and_then(|s| s.fs_group_change_policy.as_deref());
        Self {
            id: id.and_then(|id| u32::try_from(id).ok()),
            only_if_wrong: policy == Some("OnRootMismatch"),
        }
    }
}

/// Where a volume of a type stands below a pod's directory.
pub(super) fn dir_of(pod_dir: &Path, kind: &str, name: &str) -> PathBuf {
    pod_dir
        .join("volumes")
        .join(format!("kubernetes.io~{kind}"))
        .join(name)
}

/// Puts volumes in place, or brings them up to date, but for those of storage drivers; where each
/// is, by name. `stamp` must be new each time.
pub fn place(
    pod_dir: &Path,
    volumes: &[Volume],
    group: Group,
    stamp: &str,
) -> Result<BTreeMap<String, Located>, Error> {
    let mut located = BTreeMap::new();
    for volume in volumes {
        let place = place_one(pod_dir, volume, group, stamp).map_err(|e| match e {
            Error::Io { .. } => Error::set_up(&volume.name, e),
            named @ Error::SetUp { .. } => named,
        })?;
        located.extend(place.map(|place| (volume.name.clone(), place)));
    }
    Ok(located)
}

fn place_one(
    pod_dir: &Path,
    volume: &Volume,
    group: Group,
    stamp: &str,
) -> Result<Option<Located>, Error> {
    let name = &volume.name;
    let (path, read_only) = match &volume.content {
        Content::Empty(empty) => {
            let dir = dir_of(pod_dir, "empty-dir", name);
            empty_dir::place(empty, &dir)?;
            if let Some(id) = group.id {
                ownership::give(&dir, id, true)?;
            }
            (dir, false)
        }
        Content::Host(host) => {
            host_path::place(host).map_err(|reason| Error::set_up(name, reason))?;
            (host.path.clone(), false)
        }
        Content::Files {
            kind,
            payload,
            in_memory,
        } => {
            let dir = dir_of(pod_dir, kind, name);
            fs::create_dir_all(&dir).map_err(|e| Error::io("cannot create", &dir, e))?;
            if *in_memory {
                mounts::tmpfs(&dir, None, 0o755)?;
            }
            atomic::write(&dir, payload, group.id, stamp)?;
            (dir, true)
        }
        Content::Image(view) => {
            let dir = dir_of(pod_dir, "image", name);
            image::place(view, &dir)?;
            (dir, true)
        }
        // Its driver's affair.
        Content::Csi(_) => return Ok(None),
        Content::Claim(claim) => {
            let path = &claim.path;
            if claim.create && !path.exists() {
                fs::create_dir_all(path).map_err(|e| Error::io("cannot create", path, e))?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o777))
                    .map_err(|e| Error::io("cannot chmod", path, e))?;
            }
            if !path.exists() {
                let reason = format!("path \"{}\" does not exist", path.display());
                return Err(Error::set_up(name, reason));
            }
            if let Some(id) = group.id.filter(|_| !claim.read_only && !claim.block) {
                ownership::give(path, id, group.only_if_wrong)?;
            }
            (path.clone(), claim.read_only)
        }
    };
    Ok(Some(Located { path, read_only }))
}

/// Removes a pod's directory with all that is mounted in it. What claims stand for is not in it.
pub fn remove(pod_dir: &Path) -> Result<(), Error> {
    mounts::unmount_below(pod_dir)?;
    match fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", pod_dir, e))
        }
        _ => Ok(()),
    }
}
