//! The OCI runtime specification of a container, from the pod's wish and the image's config.
//!
//! Pure: what the host is like comes in as [`Host`], what the sandbox and the image gave as
//! [`Surroundings`].

pub mod capabilities;
pub mod hooks;
pub mod mounts;
pub mod seccomp;
pub mod user;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType,
    LinuxHugepageLimit, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemory, LinuxNamespace,
    LinuxNamespaceType, LinuxPids, LinuxResources, LinuxSeccomp, Process, Root, Spec,
    User as OciUser, get_default_maskedpaths, get_default_readonly_paths,
};

use self::user::ResolvedUser;
use super::{
    ContainerSpec, Error, HostIds, ImageConfig, NamespaceMode, Resources, Result, Seccomp, Security,
};

/// Where the other runtimes look for programs too.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// containerd's runc shim serves all containers of one value of this annotation with one
/// process.
const SHIM_GROUP: &str = "io.kubernetes.cri.sandbox-id";

/// What the host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The agent's bounding set of capabilities, a bit mask.
    pub capabilities: u64,
    /// The lowest `oom_score_adj` that processes started from here can have.
    pub oom_score_adj_min: i32,
    /// Whether the kernel accounts swap per cgroup.
    pub swap_accounting: bool,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// Whether the kernel can kill all of a cgroup together when memory runs out (cgroup v2).
    pub oom_group: bool,
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Path in the container.
    pub path: PathBuf,
    /// Block device, or else character device.
    pub block: bool,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

/// What sandbox, image and node give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The pod's network namespace; `None` for the host's.
    pub netns: Option<PathBuf>,
    /// The pod's IPC namespace; `None` for the host's.
    pub ipcns: Option<PathBuf>,
    /// The pod's UTS namespace; `None` for the host's.
    pub utsns: Option<PathBuf>,
    /// The pod's user namespace, and the IDs that it has.
    pub users: Option<(PathBuf, HostIds)>,
    /// Whose process IDs the container sees.
    pub pid: NamespaceMode,
    /// The pod's PID namespace, when its containers share one.
    pub pidns: Option<PathBuf>,
    /// The pod's `/dev/shm`; `None` for the host's.
    pub shm: Option<PathBuf>,
    /// The pod's host name.
    pub hostname: String,
    /// The container's cgroup, absolute in each hierarchy.
    pub cgroup: PathBuf,
    /// The image's config.
    pub image: ImageConfig,
    /// Who runs the process.
    pub user: ResolvedUser,
    /// Devices, looked up.
    pub devices: Vec<HostDevice>,
    /// Seccomp profile from a file, when the container wants one.
    pub seccomp: Option<LinuxSeccomp>,
}

/// The whole specification.
pub fn build(spec: &ContainerSpec, around: &Surroundings, host: &Host) -> Result<Spec> {
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"))
        .set_readonly(Some(spec.security.read_only_rootfs));
    let annotations = HashMap::from([(SHIM_GROUP.to_owned(), spec.pod_uid.clone())]);
    let mut oci = Spec::default();
    oci.set_version("1.0.2".to_owned())
        .set_root(Some(root))
        .set_process(Some(process(spec, around, host)?))
        .set_mounts(Some(mounts::mounts(spec, around)?))
        .set_linux(Some(linux(spec, around, host)?))
        .set_hooks(hooks::hooks(&spec.hooks))
        .set_hostname(None)
        .set_annotations(Some(annotations));
    Ok(oci)
}

/// The process of a command run in a container: as its first process, but for the command.
pub fn exec_process(first: &Process, command: &[String], tty: bool) -> Process {
    let mut process = first.clone();
    process
        .set_args(Some(command.to_vec()))
        .set_terminal(Some(tty));
    let mut env = process.env().clone().unwrap_or_default();
    if tty && !env.iter().any(|pair| pair.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    process.set_env(Some(env));
    process
}

/// Limits in the form of the specification; also for changing those of a running container.
pub fn resources(resources: &Resources, host: &Host) -> LinuxResources {
    let mut memory = LinuxMemory::default();
    memory.set_limit(resources.memory_limit_bytes);
    if host.swap_accounting {
        // The limit is of memory and swap together, so this gives none.
        memory.set_swap(resources.memory_limit_bytes);
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(resources.cpu_shares)
        .set_quota(resources.cpu_quota_us)
        .set_period(resources.cpu_period_us)
        .set_cpus(resources.cpuset_cpus.clone());
    let hugepages = resources.hugepages.iter().map(|(size, bytes)| {
        let mut limit = LinuxHugepageLimit::default();
        limit
            .set_page_size(size.clone())
            .set_limit(i64::try_from(*bytes).unwrap_or(i64::MAX));
        limit
    });
    let hugepages: Vec<LinuxHugepageLimit> = hugepages.collect();
    let mut oci = LinuxResources::default();
    oci.set_memory(Some(memory)).set_cpu(Some(cpu));
    if let Some(limit) = resources.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        oci.set_pids(Some(pids));
    }
    if !hugepages.is_empty() {
        oci.set_hugepage_limits(Some(hugepages));
    }
    if host.oom_group {
        // A container that has lost one of its processes is no whole one; the kubelet's default, too.
        let together = ("memory.oom.group".to_owned(), "1".to_owned());
        oci.set_unified(Some(HashMap::from([together])));
    }
    oci
}

fn process(spec: &ContainerSpec, around: &Surroundings, host: &Host) -> Result<Process> {
    let capabilities = capabilities::effective(&spec.security, host.capabilities)?;
    check_user(around)?;
    let mut user = OciUser::default();
    user.set_uid(around.user.uid).set_gid(around.user.gid);
    if !around.user.additional_gids.is_empty() {
        user.set_additional_gids(Some(around.user.additional_gids.clone()));
    }
    let mut process = Process::default();
    process
        .set_terminal(Some(spec.tty))
        .set_user(user)
        .set_args(Some(arguments(spec, &around.image)?))
        .set_env(Some(environment(spec, around)))
        .set_cwd(working_dir(spec, &around.image))
        .set_capabilities(Some(process_capabilities(capabilities)))
        .set_no_new_privileges(Some(spec.security.no_new_privileges))
        .set_rlimits(None)
        .set_oom_score_adj(
            spec.oom_score_adj
                .map(|adj| adj.max(host.oom_score_adj_min)),
        );
    if host.apparmor {
        process.set_apparmor_profile(spec.security.apparmor_profile.clone());
    }
    Ok(process)
}

/// A user namespace has so many users and no more.
fn check_user(around: &Surroundings) -> Result<()> {
    let Some((_, ids)) = &around.users else {
        return Ok(());
    };
    let user = &around.user;
    let mut all = [user.uid, user.gid]
        .into_iter()
        .chain(user.additional_gids.iter().copied());
    match all.find(|id| *id >= ids.count) {
        None => Ok(()),
        Some(id) => Err(Error::Invalid(format!(
            "with hostUsers: false a container has the users and groups 0 to {}; {id} is none of them",
            ids.count - 1
        ))),
    }
}

/// Nothing is inheritable: a process that drops root must not get it back by exec.
fn process_capabilities(set: HashSet<oci_spec::runtime::Capability>) -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    capabilities
}

/// `command` replaces the entrypoint and, with it, the image's command; `args` only the latter.
fn arguments(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>> {
    let mut arguments = if spec.command.is_empty() {
        &image.entrypoint
    } else {
        &spec.command
    }
    .clone();
    let rest = match (spec.command.is_empty(), spec.args.is_empty()) {
        (true, true) => &image.cmd,
        _ => &spec.args,
    };
    arguments.extend(rest.iter().cloned());
    match arguments.is_empty() {
        true => Err(Error::Invalid(
            "no command specified: neither the pod nor the image has one".into(),
        )),
        false => Ok(arguments),
    }
}

/// The last of a name wins, at the place of its first.
fn environment(spec: &ContainerSpec, around: &Surroundings) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if !around.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", around.hostname));
    }
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    if let Some(home) = &around.user.home {
        env.push(format!("HOME={home}"));
    }
    env.extend(around.image.env.iter().cloned());
    env.extend(
        spec.env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );

    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut unique: Vec<String> = Vec::new();
    for pair in env {
        match place.get(&name(&pair)) {
            Some(&at) => unique[at] = pair,
            None => {
                place.insert(name(&pair), unique.len());
                unique.push(pair);
            }
        }
    }
    unique
}

fn working_dir(spec: &ContainerSpec, image: &ImageConfig) -> PathBuf {
    let wished = spec.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let dir = wished.unwrap_or(&image.working_dir);
    PathBuf::from(if dir.is_empty() { "/" } else { dir })
}

fn linux(spec: &ContainerSpec, around: &Surroundings, host: &Host) -> Result<Linux> {
    let mut linux = Linux::default();
    let mut limits = resources(&spec.resources, host);
    limits.set_devices(Some(device_rules(&spec.security, &around.devices)));
    linux
        .set_resources(Some(limits))
        .set_cgroups_path(Some(around.cgroup.clone()))
        .set_namespaces(Some(namespaces(around)))
        .set_devices(Some(around.devices.iter().map(device).collect()))
        .set_rootfs_propagation(mounts::rootfs_propagation(spec).map(str::to_owned))
        .set_masked_paths(None)
        .set_readonly_paths(None)
        .set_seccomp(seccomp_profile(spec, around, host)?);
    if let Some((_, ids)) = &around.users {
        let mapping = id_mapping(*ids)?;
        linux
            .set_uid_mappings(Some(vec![mapping]))
            .set_gid_mappings(Some(vec![mapping]));
    }
    if !spec.security.privileged && !spec.security.unmasked_proc {
        linux
            .set_masked_paths(Some(get_default_maskedpaths()))
            .set_readonly_paths(Some(get_default_readonly_paths()));
    }
    Ok(linux)
}

fn id_mapping(ids: HostIds) -> Result<LinuxIdMapping> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(ids.first)
        .size(ids.count)
        .build();
    mapping.map_err(|error| Error::Invalid(format!("the IDs of a user namespace: {error}")))
}

fn seccomp_profile(
    spec: &ContainerSpec,
    around: &Surroundings,
    host: &Host,
) -> Result<Option<LinuxSeccomp>> {
    if spec.security.privileged {
        return Ok(None);
    }
    match &spec.security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => {
            let capabilities = capabilities::effective(&spec.security, host.capabilities)?;
            Ok(Some(seccomp::default_profile(&capabilities)))
        }
        Seccomp::Localhost(path) => match &around.seccomp {
            Some(profile) => Ok(Some(profile.clone())),
            None => Err(Error::Invalid(format!(
                "seccomp profile {} was not read",
                path.display()
            ))),
        },
    }
}

/// A namespace without a path is a new one; one that is not named is the host's.
fn namespaces(around: &Surroundings) -> Vec<LinuxNamespace> {
    let namespace = |kind, path: Option<&PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.cloned());
        namespace
    };
    let mut all = vec![namespace(LinuxNamespaceType::Mount, None)];
    let users = around.users.as_ref().map(|(path, _)| path.clone());
    let pinned = [
        (LinuxNamespaceType::User, &users),
        (LinuxNamespaceType::Network, &around.netns),
        (LinuxNamespaceType::Ipc, &around.ipcns),
        (LinuxNamespaceType::Uts, &around.utsns),
    ];
    for (kind, path) in pinned {
        if path.is_some() {
            all.push(namespace(kind, path.as_ref()));
        }
    }
    if around.pid != NamespaceMode::Host {
        all.push(namespace(LinuxNamespaceType::Pid, around.pidns.as_ref()));
    }
    all
}

/// First nothing is allowed, then what there is. (The OCI runtime adds `/dev/null` and the
/// like.)
fn device_rules(security: &Security, devices: &[HostDevice]) -> Vec<LinuxDeviceCgroup> {
    let mut all = LinuxDeviceCgroup::default();
    all.set_allow(security.privileged)
        .set_access(Some("rwm".to_owned()));
    let rule = |device: &HostDevice| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(device_type(device)))
            .set_major(Some(device.major))
            .set_minor(Some(device.minor))
            .set_access(Some(device.access.clone()));
        rule
    };
    let mut rules = vec![all];
    if !security.privileged {
        rules.extend(devices.iter().map(rule));
    }
    rules
}

fn device(device: &HostDevice) -> LinuxDevice {
    let mut oci = LinuxDevice::default();
    oci.set_path(device.path.clone())
        .set_typ(device_type(device))
        .set_major(device.major)
        .set_minor(device.minor)
        .set_file_mode(Some(device.mode & 0o7777))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    oci
}

fn device_type(device: &HostDevice) -> LinuxDeviceType {
    if device.block {
        LinuxDeviceType::B
    } else {
        LinuxDeviceType::C
    }
}

#[cfg(test)]
mod tests;
