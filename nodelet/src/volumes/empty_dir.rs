//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

use super::{Error, mounts};

/// An empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmptyDir {
    /// `medium: Memory`: it is a tmpfs.
    pub in_memory: bool,
    /// At most this many bytes; enforced at once in memory.
    pub size_limit_bytes: Option<i64>,
    /// Permissions.
    pub mode: u32,
}

/// Reads the declaration.
pub fn of(source: &EmptyDirVolumeSource) -> EmptyDir {
    let limit = source
        .size_limit
        .as_ref()
        .and_then(|text| Quantity::try_from(text).ok());
    EmptyDir {
        in_memory: source.medium.as_deref() == Some("Memory"),
        size_limit_bytes: limit
            .filter(|limit| !limit.is_zero())
            .map(|limit| limit.units()),
        mode: source
            .mode
            .and_then(|mode| u32::try_from(mode).ok())
            .unwrap_or(0o777),
    }
}

/// Makes the directory. What is in it is left alone.
pub fn place(volume: &EmptyDir, dir: &Path) -> Result<(), Error> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).map_err(|e| Error::io("cannot create", dir, e))?;
    let mut fresh_mount = false;
    if volume.in_memory {
        fresh_mount = mounts::tmpfs(dir, volume.size_limit_bytes, volume.mode)?;
    }
    if fresh || fresh_mount {
        fs::set_permissions(dir, fs::Permissions::from_mode(volume.mode))
            .map_err(|e| Error::io("cannot chmod", dir, e))?;
    }
    Ok(())
}
