//! What is said to a runtime and what it says: plain values, everything resolved.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;
use std::path::PathBuf;

use jiff::Timestamp;
use peapod_api::attach::PodRef;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use super::users::HostIds;

/// How much of a command's output [`super::Runtime::exec_sync`] keeps, per stream, in bytes.
pub const EXEC_OUTPUT_MAX: usize = 16 * 1024;

/// Names a container: 64 hexadecimal digits; in the API `containerd://` stands before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose namespace a pod or container lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's own, shared by its containers.
    #[default]
    Pod,
    /// One for each container (only for process IDs, where it is the rule).
    Container,
    /// The host's.
    Host,
}

/// The Quality of Service class of a pod; it decides where its cgroup stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Limits equal requests for every container.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    #[default]
    BestEffort,
}

/// What a pod's containers share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod.
    pub pod: PodRef,
    /// What `hostname` says inside; at most 64 bytes.
    pub hostname: String,
    /// [`NamespaceMode::Host`] for `hostNetwork`, which shares the host's UTS namespace, too.
    pub network: NamespaceMode,
    /// With the host's network, the pod has a UTS namespace of its own all the same: its node's name is not
    /// the machine's.
    #[serde(default)]
    pub own_hostname: bool,
    /// [`NamespaceMode::Host`] for `hostIPC`.
    pub ipc: NamespaceMode,
    /// `hostPID`: Host; `shareProcessNamespace`: Pod; otherwise Container.
    pub pid: NamespaceMode,
    /// The pod has a user namespace of its own (`hostUsers: false`): its IDs are others on the host.
    #[serde(default)]
    pub own_users: bool,
    /// Namespaced sysctls (`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`).
    pub sysctls: BTreeMap<String, String>,
    /// QoS class.
    pub qos: QosClass,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// OCI runtime to use for its containers, instead of the node's default.
    #[serde(default)]
    pub runtime_handler: Option<String>,
    /// Kept with the sandbox for the caller.
    pub labels: BTreeMap<String, String>,
}

// === impl SandboxSpec ===

impl SandboxSpec {
    /// Whether the pod has a UTS namespace of its own.
    pub fn has_uts(&self) -> bool {
        self.network != NamespaceMode::Host || self.own_hostname
    }
}

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What it was made from.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where the network namespace is pinned; `None` with the host's network.
    pub netns: Option<PathBuf>,
    /// The IDs of the host that the pod has, with a user namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<HostIds>,
    /// The first process of the PID namespace that the containers share, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaper: Option<u32>,
    /// Whether the namespaces are still there. A reboot takes them: remove the sandbox and make
    /// it anew.
    pub alive: bool,
}

/// Limits and weights, in the units of the kernel. `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight of CPU, 2-262144 (1024 for one CPU requested).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, in microseconds; negative for no limit.
    pub cpu_quota_us: Option<i64>,
    /// The period, in microseconds, 1000-1000000 (usually 100000).
    pub cpu_period_us: Option<u64>,
    /// CPUs to run on (`0-2,7`).
    pub cpuset_cpus: Option<String>,
    /// Memory limit in bytes; swap is not given on top.
    pub memory_limit_bytes: Option<i64>,
    /// Memory that is protected from reclaim, in bytes (cgroup v2 only).
    pub memory_min_bytes: Option<i64>,
    /// How many processes and threads.
    pub pids_limit: Option<i64>,
    /// Limits of huge pages by page size (`2MB`), in bytes.
    pub hugepages: BTreeMap<String, u64>,
}

/// A container, everything resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// UID of its pod; the sandbox must exist.
    pub pod_uid: String,
    /// The container's name in the pod.
    pub name: String,
    /// 0 for the first container of this name, then 1, 2, ... one for each restart.
    pub attempt: u32,
    /// The image: its ID or any reference that the node has.
    pub image: String,
    /// What the pod says the image is called (for [`Container::image`]).
    pub image_name: String,
    /// Overrides the image's entrypoint when not empty (`command`).
    pub command: Vec<String>,
    /// Overrides the image's command when not empty (`args`). With `command` given and this
    /// empty, the image's command is not used either.
    pub args: Vec<String>,
    /// Environment on top of the image's, in order; the last of a name wins.
    pub env: Vec<(String, String)>,
    /// Working directory instead of the image's; made when it does not exist.
    pub working_dir: Option<String>,
    /// User instead of the image's.
    pub user: User,
    /// Mounts on top of the standard ones (`/proc`, `/dev`, `/dev/shm`, `/sys` ...): volumes, and
    /// `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Programs that prepare it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Limits.
    pub resources: Resources,
    /// `oom_score_adj`, -1000 to 1000. Where the host does not let it be lowered, it stays at
    /// what the agent has.
    pub oom_score_adj: Option<i32>,
    /// Security.
    pub security: Security,
    /// Whether to give the process a terminal.
    pub tty: bool,
    /// Whether standard input can be attached to; otherwise it is empty.
    pub stdin: bool,
    /// Whether standard input ends when the first client that attached to it goes.
    pub stdin_once: bool,
    /// Where its log goes, in the CRI format; the directory is made. `None` throws output away.
    pub log_path: Option<PathBuf>,
    /// Kept with the container for the caller. Keys under `peapod.dev/` are the runtime's.
    pub labels: BTreeMap<String, String>,
    /// Shares the process IDs of this container of its pod, which runs (`targetContainerName`),
    /// instead of having its own.
    pub pid_of: Option<ContainerId>,
    /// OCI runtime to use (`runc`, `crun`), instead of the node's default.
    pub runtime_handler: Option<String>,
}

/// Who runs the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User ID; the image's user when `None`.
    pub uid: Option<u32>,
    /// Group ID; the primary group of the user in the image's `/etc/passwd`, or 0, when `None`.
    pub gid: Option<u32>,
    /// Supplemental groups, on top of those that the image's `/etc/group` gives the user.
    pub additional_gids: Vec<u32>,
    /// Only `additional_gids`, nothing from the image (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
}

/// How far mounts made later are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// `None`: not at all (`rprivate`).
    #[default]
    Private,
    /// `HostToContainer` (`rslave`).
    HostToContainer,
    /// `Bidirectional` (`rshared`); privileged containers only.
    Bidirectional,
}

/// A file or directory of the host inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside.
    pub destination: PathBuf,
    /// Absolute path on the host; it must exist.
    pub source: PathBuf,
    /// Read only.
    pub read_only: bool,
    /// Read only including the mounts below it.
    pub recursive_read_only: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Further flags: `nosuid`, `nodev`, `noexec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// A program that the OCI runtime runs at a point of a container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When.
    pub stage: HookStage,
    /// The program.
    pub path: PathBuf,
    /// Its arguments, its name first.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_s: Option<i64>,
}

/// When a hook runs, as the OCI runtime specification calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum HookStage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// A file system to mount: what `mount` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsMount {
    /// Type of the file system (`overlay`, `bind`).
    pub kind: String,
    /// What to mount.
    pub source: String,
    /// Options.
    pub options: Vec<String>,
}

/// A device of the host inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub host_path: PathBuf,
    /// Inside.
    pub container_path: PathBuf,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// All of them (the default of Kubernetes).
    #[default]
    Unconfined,
    /// The list that container runtimes use.
    RuntimeDefault,
    /// A profile in the OCI JSON format.
    Localhost(PathBuf),
}

/// What a process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Everything is allowed: all capabilities, devices, no seccomp, `/sys` writable.
    pub privileged: bool,
    /// Root file system is read only.
    pub read_only_rootfs: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// Capabilities on top of the default ones, without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to take away; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// Seccomp.
    pub seccomp: Seccomp,
    /// AppArmor profile, when the host has AppArmor.
    pub apparmor_profile: Option<String>,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
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
    /// [`Runtime::refused_forks`]: super::Runtime::refused_forks
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

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub command: Vec<String>,
    /// With a terminal (then there is no separate stderr).
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The caller's ends of a process's streams.
#[derive(Default)]
pub struct Streams {
    /// Bytes for the process; its end closes the process's standard input.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes standard output.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Takes standard error; unused with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Sizes of the terminal, as they change.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// What a command printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub code: i32,
    /// Standard output, capped.
    pub stdout: Vec<u8>,
    /// Standard error, capped.
    pub stderr: Vec<u8>,
}

/// What a container or pod uses, by its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time since it started, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory in use, with the page cache, in bytes.
    pub memory_usage_bytes: u64,
    /// Memory in use that cannot be reclaimed easily (usage less inactive file pages), in bytes.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that waited for the disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What something takes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the blocks that it has.
    pub bytes: u64,
    /// Files, directories, links ...
    pub inodes: u64,
}

impl Add for DiskUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl Sum for DiskUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

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

// === impl Resources ===

impl Resources {
    /// Of each limit the wider one; what either does not set stays as it is.
    pub fn most(&self, other: &Self) -> Self {
        /// `None` and negative numbers are no limit.
        fn wider(one: Option<i64>, other: Option<i64>) -> Option<i64> {
            match (one?, other?) {
                (a, b) if a < 0 || b < 0 => Some(-1),
                (a, b) => Some(a.max(b)),
            }
        }
        Self {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: wider(self.cpu_quota_us, other.cpu_quota_us),
            memory_limit_bytes: wider(self.memory_limit_bytes, other.memory_limit_bytes),
            pids_limit: wider(self.pids_limit, other.pids_limit),
            ..other.clone()
        }
    }
}
