//! Containers that exist: where they stand, how they ended, and what happens to them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::hex_sha256;

/// Names a container: 64 hexadecimal digits; in the API `containerd://` stands before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

// === impl ContainerId ===

impl ContainerId {
    /// Digits of an ID.
    pub const LENGTH: usize = 64;

    /// The ID of a container: the same for the same pod, name and attempt, in every runtime and after
    /// every restart, so that creating can be repeated.
    pub fn derive(pod_uid: &str, name: &str, attempt: u32) -> Self {
        Self(hex_sha256(&[pod_uid, name, &attempt.to_string()]))
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// The first process, as the host sees it.
        pid: u32,
    },
    /// Its process has ended, or could not be started.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when killed by one; 255 when the end was not seen (a reboot).
    pub code: i32,
    /// `None` when it could not be started.
    pub started_at: Option<Timestamp>,
    /// When.
    pub finished_at: Timestamp,
    /// Why.
    pub reason: ExitReason,
    /// Text for `message` when the runtime has one (why it could not be started).
    pub message: String,
}

/// Why a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// By itself or by a signal.
    Exited,
    /// The kernel killed it for memory.
    OomKilled,
    /// The runtime could not start it (`StartError` / `ContainerCannotRun`, code 128).
    StartError,
    /// Nobody saw it: the machine went down under it.
    Unknown,
}

/// A container that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its ID.
    pub id: ContainerId,
    /// UID of its pod.
    pub pod_uid: String,
    /// Name in the pod.
    pub name: String,
    /// Number of the restart.
    pub attempt: u32,
    /// What the pod calls the image.
    pub image: String,
    /// The image's ID (`sha256:...`, digest of its config).
    pub image_id: String,
    /// The image's digest reference (`docker.io/library/nginx@sha256:...`), for `imageID`.
    pub image_ref: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its log.
    pub log_path: Option<PathBuf>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub state: ContainerState,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container's process runs.
    Started {
        /// Which.
        id: ContainerId,
        /// Of which pod.
        pod_uid: String,
    },
    /// A container ended; its log is complete.
    Exited {
        /// Which.
        id: ContainerId,
        /// Of which pod.
        pod_uid: String,
        /// How.
        exit: Exit,
    },
    /// The kernel killed a process of a running container for memory; the container may live on.
    Oom {
        /// Which.
        id: ContainerId,
        /// Of which pod.
        pod_uid: String,
    },
    /// The kernel has refused a pod a process, because it has as many as it may. Where the kernel does not tell
    /// of it, it is announced when the container ends; until then [`Runtime::refused_forks`] tells.
    ///
    /// [`Runtime::refused_forks`]: crate::runtime::Runtime::refused_forks
    ForksRefused {
        /// Which pod.
        pod_uid: String,
        /// How often so far, by the groups that it has now.
        count: u64,
    },
    /// The runtime answers (again); what happened in between was not announced: list.
    Connected,
    /// The runtime does not answer any more. Containers run on.
    Disconnected,
}
