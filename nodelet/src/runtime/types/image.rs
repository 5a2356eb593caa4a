//! Images: what is known of them, and how they are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:...`, the digest of its config.
    pub id: String,
    /// Digest of the manifest for this platform.
    pub digest: String,
    /// Every reference to it, normalised; tags first, then `name@digest`.
    pub references: Vec<String>,
    /// Size of its compressed layers and config in bytes.
    pub size_bytes: u64,
    /// Its config.
    pub config: ImageConfig,
}

/// The part of an image's config that running it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `User`, as the image says it: `uid`, `name`, `uid:gid` ...; empty for root.
    pub user: String,
    /// The user ID when `user` starts with a number (or is empty: 0); `None` for a name.
    pub uid: Option<u32>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `StopSignal` (`SIGTERM`, `15`), when the image names one.
    pub stop_signal: Option<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
}

/// Asks for an image from a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// The reference.
    pub reference: String,
    /// Credentials to try in turn; without any, anonymously.
    pub credentials: Vec<Credential>,
}

/// What a registry wants to know.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, ...)"),
            Self::Bearer(_) => f.write_str("Bearer(...)"),
        }
    }
}

/// A step of a pull or load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressEvent {
    /// The manifest is known.
    Resolved {
        /// Digest of the manifest.
        digest: String,
        /// How many layers.
        layers: usize,
        /// Size of the layers as they travel, in bytes.
        total_bytes: u64,
    },
    /// Some of a layer has arrived.
    Fetching {
        /// Digest of the layer.
        layer: String,
        /// So far, in bytes.
        done_bytes: u64,
        /// Of how many.
        total_bytes: u64,
    },
    /// A layer is stored and verified (or was here before).
    Fetched {
        /// Digest of the layer.
        layer: String,
    },
    /// A layer is in the file system.
    Unpacked {
        /// Digest of the layer.
        layer: String,
    },
}

/// What images occupy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUsage {
    /// In bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}
