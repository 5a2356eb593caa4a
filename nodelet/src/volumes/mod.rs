//! The volumes of a pod: found, put in place, kept up to date, and cleaned up.
//!
//! [`gather`](gather::gather) asks the API for what volumes refer to and makes a list of
//! [`Volume`]s in which everything is resolved; [`place`](place::place) puts them in place, as
//! often as one likes, and says where they are. A file each for what is particular to a type.
//!
//! On the node a pod's volumes stand below `DATA_DIR/pods/UID/volumes/TYPE/NAME`, named as
//! upstream's.

pub mod atomic;
pub mod claim;
pub mod empty_dir;
pub mod gather;
pub mod host_path;
pub mod image;
pub mod local_class;
pub mod mounts;
pub mod ownership;
pub mod payload;
pub mod place;
pub mod reclaim;
pub mod subpath;
pub mod token;

use std::path::PathBuf;

use payload::Payload;

use crate::csi::spec::Spec;
use crate::runtime::FsMount;

/// Why a volume is not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that it refers to is missing.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    SetUp {
        /// Name of the volume in the pod.
        volume: String,
        /// What is missing or failed, and what to do.
        reason: String,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// How it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// A failure of one volume.
    pub fn set_up(volume: &str, reason: impl ToString) -> Self {
        Self::SetUp {
            volume: volume.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// A failed file operation.
    pub fn io(
        what: &'static str,
        path: &std::path::Path,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Self::Io {
            what,
            path: path.display().to_string(),
            source: source.into(),
        }
    }
}

/// A volume with everything resolved.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it is.
    pub content: Content,
}

/// What a volume is.
#[derive(Clone, Debug)]
pub enum Content {
    /// An empty directory on the node's disk or in its memory.
    Empty(empty_dir::EmptyDir),
    /// Something of the host's.
    Host(host_path::HostPath),
    /// Files made from objects of the API; `kind` is part of the path (`configmap`).
    Files {
        /// `configmap`, `secret`, `downward-api` or `projected`.
        kind: &'static str,
        /// The files.
        payload: Payload,
        /// Whether they must not touch a disk.
        in_memory: bool,
    },
    /// A directory that a PersistentVolume stands for.
    Claim(claim::Claim),
    /// The files of an image.
    Image(Vec<FsMount>),
    /// A volume that a storage driver puts in place.
    Csi(Box<Spec>),
}

/// Where a volume is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The directory (or file, or device) to mount.
    pub path: PathBuf,
    /// Whether containers may only read it.
    pub read_only: bool,
}
