//! The container runtime as the pod lifecycle sees it.
//!
//! [`Runtime`] is what a node can do with sandboxes (the namespaces and the cgroup of a pod)
//! and containers; [`Images`] is what it can do with images. Both are object safe, and their
//! values are plain types ([`types`]) in which everything is resolved: no reference to a
//! ConfigMap, no default left to guess, no Kubernetes type.
//!
//! There are two implementations: [`containerd`] runs real containers, [`hollow`] pretends to,
//! for scale tests and simulation.
//!
//! A runtime must not know what a pod's restart policy, probes or status are: it does what it is told,
//! tells what is, and announces what changed.

pub mod cgroups;
pub mod containerd;
pub mod hollow;
pub mod reaper;
pub mod spec;
pub mod sys;
pub mod types;
pub mod users;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

pub use types::*;

/// Why a runtime could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The container, sandbox or image does not exist (any more).
    #[error("{kind} {id} does not exist on this node")]
    NotFound {
        /// `container`, `sandbox`, `image` ...
        kind: &'static str,
        /// Its ID or reference.
        id: String,
    },
    /// The image is not on the node: pull or load it.
    #[error("image {0} is not present on this node")]
    ImageNotPresent(String),
    /// The request contradicts itself or asks for what the host lacks; repeating it is useless.
    #[error("{0}")]
    Invalid(String),
    /// The container is not in the state that the call needs (exec into an exited container).
    #[error("container {id} is {state}; {what} needs a running one")]
    NotRunning {
        /// The container.
        id: ContainerId,
        /// The state it is in.
        state: String,
        /// What was asked.
        what: &'static str,
    },
    /// The runtime does not answer. Containers run on; the call may be repeated.
    #[error("{0}")]
    Unavailable(String),
    /// The call took longer than it may.
    #[error("{what} did not finish within {limit:?}")]
    Timeout {
        /// What was asked.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The runtime, the OCI runtime or the kernel refused; the text is theirs.
    #[error("{what}: {reason}")]
    Failed {
        /// What was tried, on what.
        what: String,
        /// The reason as the lower layer gave it.
        reason: String,
    },
    /// A registry or an archive did not give the image.
    #[error("{0}")]
    Image(#[from] ImageError),
}

/// Why an image could not be pulled, loaded or unpacked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse (`InvalidImageName`).
    #[error("invalid image reference {reference:?}: {reason}")]
    InvalidReference {
        /// The reference as given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry does not know the image, or does not show it to these credentials.
    #[error("image {reference}: {reason}")]
    NotFound {
        /// The reference.
        reference: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry wants other credentials (`imagePullSecrets`).
    #[error("image {reference}: {reason}; check the pull secret")]
    Unauthorized {
        /// The reference.
        reference: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry does not answer, or broke off (`RegistryUnavailable`).
    #[error("image {reference}: registry unavailable: {reason}")]
    Unavailable {
        /// The reference.
        reference: String,
        /// What happened.
        reason: String,
    },
    /// The image has no variant for this node's platform.
    #[error("image {reference} has no variant for {platform}; it has: {available}")]
    NoPlatform {
        /// The reference.
        reference: String,
        /// `linux/amd64`, for example.
        platform: String,
        /// The platforms that the index names.
        available: String,
    },
    /// The bytes are not an image: truncated, wrong digest, not an archive, path outside, too big.
    #[error("{subject} is not a sound image: {reason}")]
    Corrupt {
        /// The archive or reference.
        subject: String,
        /// What is wrong.
        reason: String,
    },
}

/// What every call returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs sandboxes and containers. Every method may be repeated after a crash: creating what
/// exists gives what exists, removing what is gone succeeds.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Names, versions and abilities of the runtime and its host.
    async fn info(&self) -> Result<RuntimeInfo>;

    /// Succeeds when the runtime answers; the node's Ready condition stands on it.
    async fn ready(&self) -> Result<()>;

    /// Whether pods may ask for this OCI runtime by a RuntimeClass.
    fn has_handler(&self, _handler: &str) -> bool {
        true
    }

    /// Pins the pod's namespaces and makes its cgroup. With the network namespace made, and
    /// nothing in it but an interface `lo` that is up.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox>;

    /// Every sandbox of this node, also those that a reboot left without namespaces
    /// ([`Sandbox::alive`]).
    async fn sandboxes(&self) -> Result<Vec<Sandbox>>;

    /// Sets the pod's cgroup limits.
    async fn update_sandbox(&self, pod_uid: &str, resources: &Resources) -> Result<()>;

    /// Kills and removes what is left of the pod's containers, then its namespaces and its
    /// cgroup. Detach the network first.
    async fn remove_sandbox(&self, pod_uid: &str) -> Result<()>;

    /// Makes what a container that is to come needs of its image (an ID), so that
    /// [`Runtime::create_container`] takes less time. What no container took goes with the sandbox.
    async fn prepare_container(
        &self,
        _pod_uid: &str,
        _id: &ContainerId,
        _image: &str,
    ) -> Result<()> {
        Ok(())
    }

    /// Lets go of what was made for containers of a pod that are not to come.
    async fn discard_prepared(&self, _pod_uid: &str) -> Result<()> {
        Ok(())
    }

    /// Makes a container: its file system and its record. Nothing runs yet. The ID follows from
    /// pod UID, container name and attempt, so that repeating gives the same container.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId>;

    /// Starts a created container's process. A container is started once; a restart is a new
    /// container with the next `attempt`.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Sends a signal (its number) to the container's first process; `SIGKILL` (9) goes to all
    /// of its processes. Succeeds when it has exited already. The exit comes as an event.
    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()>;

    /// Removes a container, killing it if it runs. Its log files stay.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// All containers of this node, in every state.
    async fn containers(&self) -> Result<Vec<Container>>;

    /// One container.
    async fn container(&self, id: &ContainerId) -> Result<Container>;

    /// Changes the limits of a running container.
    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<()>;

    /// What happens from now on. A receiver that lags lists again with
    /// [`Runtime::containers`]; so it does after [`RuntimeEvent::Connected`].
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;

    /// Runs a command in a running container with the caller's streams and waits for its exit
    /// code. Dropping the future kills the command.
    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: Streams) -> Result<i32>;

    /// Runs a command and collects what it prints, the first [`EXEC_OUTPUT_MAX`] bytes of it.
    /// After `timeout` the command is killed and the error is [`Error::Timeout`].
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput>;

    /// Connects the caller's streams to the container's first process, from now on, until the
    /// container exits (its exit code) or the caller closes its streams (`None`).
    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Option<i32>>;

    /// What one container uses.
    async fn container_stats(&self, id: &ContainerId) -> Result<Stats>;

    /// What a whole pod uses, by its cgroup.
    async fn sandbox_stats(&self, pod_uid: &str) -> Result<Stats>;

    /// How often the kernel has refused a pod a process, because it has as many as it may.
    async fn refused_forks(&self, pod_uid: &str) -> Result<u64>;

    /// What the container's changes of its root file system take.
    async fn writable_usage(&self, id: &ContainerId) -> Result<DiskUsage>;

    /// Waits until everything that the container wrote until now is in its log file.
    async fn flush_log(&self, id: &ContainerId) -> Result<()>;

    /// The images of this node.
    fn images(&self) -> Arc<dyn Images>;
}

/// The images of one node. References are as users write them; they are normalised
/// (`nginx` is `docker.io/library/nginx:latest`).
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// The image under this reference, if the node has it unpacked.
    async fn get(&self, reference: &str) -> Result<Option<Image>>;

    /// An image that [`Images::get`] found a moment ago, by its ID or by digest; it may have gone since.
    fn recent(&self, _reference: &str) -> Option<Image> {
        None
    }

    /// Every image of this node.
    async fn list(&self) -> Result<Vec<Image>>;

    /// Gets the image from its registry, whether the node has one of that name or not. Pull
    /// policy is the caller's affair. Concurrent pulls of one reference with the same credentials
    /// share the work.
    async fn pull(&self, request: &PullRequest, progress: &dyn Progress) -> Result<Image>;

    /// Loads every image of an OCI or Docker archive (`.tar`).
    async fn load(&self, archive: &Path, progress: &dyn Progress) -> Result<Vec<Image>>;

    /// Removes a reference, or with an ID (`sha256:...`) all references to that image.
    async fn remove(&self, reference: &str) -> Result<()>;

    /// Removes the images that no container uses and that `keep` does not hold; gives those
    /// removed.
    async fn prune(&self, keep: &[String]) -> Result<Vec<Image>>;

    /// What to mount, read-only, so that a pod sees the files of an image (its ID) in a volume. May
    /// be repeated.
    async fn open_view(&self, id: &str, pod_uid: &str, volume: &str) -> Result<Vec<FsMount>>;

    /// Lets go of what [`Images::open_view`] gave to a pod; nothing of it may be mounted any more.
    async fn close_views(&self, pod_uid: &str) -> Result<()>;

    /// Bytes that images and snapshots occupy, and inodes when known.
    async fn usage(&self) -> Result<ImageUsage>;
}

/// Hears how a pull or load comes along.
pub trait Progress: Send + Sync {
    /// Called often, from several tasks; must not block.
    fn update(&self, event: ProgressEvent);
}

/// Progress that nobody wants to hear.
pub struct Quiet;

impl Progress for Quiet {
    fn update(&self, _event: ProgressEvent) {}
}

/// SHA-256 of the parts, each ended by a zero byte, in lower-case hexadecimal.
pub(crate) fn hex_sha256(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hex(&hasher.finalize())
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
