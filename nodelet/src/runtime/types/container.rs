//! What a container is made from, everything resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::resources::Resources;
use super::state::ContainerId;

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
    /// What the pod says the image is called (for [`Container::image`](super::Container::image)).
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
