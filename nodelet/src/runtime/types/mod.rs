//! What is said to a runtime and what it says: plain values, everything resolved.

mod container;
mod exec;
mod image;
mod resources;
mod sandbox;
mod state;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::users::HostIds;
pub use container::*;
pub use exec::*;
pub use image::*;
pub use resources::*;
pub use sandbox::*;
pub use state::*;

/// Names and versions of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// `containerd`.
    pub name: String,
    /// Its version, without `v`.
    pub version: String,
    /// OCI runtime (`runc`, `crun`).
    pub oci_runtime: String,
    /// OCI runtimes that pods may ask for by a RuntimeClass.
    pub handlers: Vec<String>,
    /// Whether pods can have user namespaces of their own.
    pub user_namespaces: bool,
    /// Whether the host has the unified cgroup hierarchy.
    pub cgroup_v2: bool,
    /// Where images and snapshots are stored, for the disk's figures.
    pub image_dir: PathBuf,
}
