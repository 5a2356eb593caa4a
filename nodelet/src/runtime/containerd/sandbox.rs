//! Sandboxes: the pinned namespaces, shared memory and cgroup of each pod.
//!
//! A sandbox is a directory, `sandboxes/UID`, with the namespaces mounted over the files `net`,
//! `ipc`, `uts` and, where the pod has one, `user` (its IDs in the file `ids`), the pod's `/dev/shm` mounted at `shm`, and `sandbox.json`, written last. No
//! process holds it, but for pods whose containers share their process IDs: those have a
//! [`reaper`], with its number in the file `reaper` and the namespace at `pid`. A reboot leaves the
//! directory and takes the mounts: then the sandbox is not alive.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use nix::sched::CloneFlags;
use parking_lot::Mutex;

use crate::runtime::reaper::{self, Inside};
use crate::runtime::sys::{self, Pin};
use crate::runtime::users::{self, HostIds, Ranges, namespace};
use crate::runtime::{Error, NamespaceMode, Result, Sandbox, SandboxSpec};

/// Size of a pod's `/dev/shm`, as the other runtimes have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// The sandboxes below one directory.
#[derive(Clone, Debug)]
pub struct Sandboxes {
    dir: PathBuf,
    ranges: Ranges,
    /// One pod at a time is given IDs.
    giving: Arc<Mutex<()>>,
}

/// Where the parts of one sandbox are.
#[derive(Clone, Debug)]
pub struct Paths {
    dir: PathBuf,
}

// === impl Paths ===

impl Paths {
    /// The network namespace.
    pub fn net(&self) -> PathBuf {
        self.dir.join("net")
    }

    /// The IPC namespace.
    pub fn ipc(&self) -> PathBuf {
        self.dir.join("ipc")
    }

    /// The UTS namespace.
    pub fn uts(&self) -> PathBuf {
        self.dir.join("uts")
    }

    /// The PID namespace.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// The user namespace.
    pub fn user(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// The pod's `/dev/shm`.
    pub fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }

    fn reaper(&self) -> PathBuf {
        self.dir.join("reaper")
    }

    fn ids(&self) -> PathBuf {
        self.dir.join("ids")
    }

    fn mounts(&self) -> [PathBuf; 6] {
        let namespaces = [self.net(), self.ipc(), self.uts(), self.pid(), self.user()];
        let [net, ipc, uts, pid, user] = namespaces;
        [net, ipc, uts, pid, user, self.shm()]
    }

    /// The first process of the PID namespace, by the file that names it.
    fn reaper_pid(&self) -> Option<u32> {
        fs::read_to_string(self.reaper()).ok()?.parse().ok()
    }
}

// === impl Sandboxes ===

impl Sandboxes {
    /// The sandboxes below `dir`; those with user namespaces get their IDs from `ranges`.
    pub fn new(dir: PathBuf, ranges: Ranges) -> Self {
        Self {
            dir,
            ranges,
            giving: Arc::default(),
        }
    }

    /// The paths of a pod's sandbox.
    pub fn paths(&self, pod_uid: &str) -> Paths {
        Paths {
            dir: self.dir.join(pod_uid),
        }
    }

    /// Makes the sandbox, or gives the one that is there. Blocks for some milliseconds.
    pub fn create(&self, spec: &SandboxSpec, now: Timestamp) -> Result<Sandbox> {
        check(spec)?;
        match self.get(&spec.pod.uid)? {
            Some(sandbox) if sandbox.alive => return Ok(sandbox),
            _ => self.remove(&spec.pod.uid)?,
        }
        let paths = self.paths(&spec.pod.uid);
        let what = || {
            format!(
                "making the namespaces of pod {}/{}",
                spec.pod.namespace, spec.pod.name
            )
        };
        let failed = |error: io::Error| Error::Failed {
            what: what(),
            reason: error.to_string(),
        };
        fs::create_dir_all(&paths.dir).map_err(failed)?;
        let ids = match spec.own_users {
            true => Some(self.give_ids(&paths).map_err(failed)?),
            false => None,
        };
        pin(spec, ids, &paths).map_err(failed)?;
        if spec.ipc != NamespaceMode::Host {
            let owner = ids.map_or(0, |ids| ids.first);
            let options = format!("{SHM_OPTIONS},uid={owner},gid={owner}");
            sys::mount_tmpfs(&paths.shm(), &options).map_err(failed)?;
        }
        let reaper = (spec.pid == NamespaceMode::Pod)
            .then(|| start_reaper(spec, &paths))
            .transpose()
            .map_err(failed)?;
        let sandbox = Sandbox {
            spec: spec.clone(),
            ids,
            reaper,
            created_at: now,
            netns: (spec.network != NamespaceMode::Host).then(|| paths.net()),
            alive: true,
        };
        write_record(&paths.record(), &sandbox).map_err(failed)?;
        Ok(sandbox)
    }

    /// Gives a pod IDs that no other has, and notes it before anything else.
    fn give_ids(&self, paths: &Paths) -> io::Result<HostIds> {
        let missing = users::missing().or_else(|| users::closed(&self.dir));
        if let Some(why) = missing {
            return Err(io::Error::other(format!("hostUsers: false: {why}")));
        }
        let _turn = self.giving.lock();
        let mut used = Vec::new();
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let text = fs::read_to_string(entry.path().join("ids")).unwrap_or_default();
            used.extend(text.trim().parse::<u32>());
        }
        let none = || {
            let pods = self.ranges.pods;
            io::Error::other(format!(
                "hostUsers: false: all ranges of IDs are taken; there are {pods} on this node"
            ))
        };
        let ids = self.ranges.free(&used).ok_or_else(none)?;
        fs::write(paths.ids(), ids.first.to_string())?;
        Ok(ids)
    }

    /// Keeps what has changed of a sandbox.
    pub fn record(&self, sandbox: &Sandbox) -> Result<()> {
        let path = self.paths(&sandbox.spec.pod.uid).record();
        write_record(&path, sandbox).map_err(|error| Error::Failed {
            what: format!("writing {}", path.display()),
            reason: error.to_string(),
        })
    }

    /// One sandbox, if it was completed.
    pub fn get(&self, pod_uid: &str) -> Result<Option<Sandbox>> {
        let paths = self.paths(pod_uid);
        let text = match fs::read(paths.record()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&paths.record(), &error)),
        };
        let mut sandbox: Sandbox =
            serde_json::from_slice(&text).map_err(|error| unreadable(&paths.record(), &error))?;
        sandbox.alive = is_alive(&sandbox.spec, &paths);
        Ok(Some(sandbox))
    }

    /// Every sandbox. One that a crash left half made is removed on the way: nobody was told of
    /// it.
    pub fn list(&self) -> Result<Vec<Sandbox>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.dir, &error)),
        };
        let mut sandboxes = Vec::new();
        for entry in entries.flatten() {
            let Ok(pod_uid) = entry.file_name().into_string() else {
                continue;
            };
            match self.get(&pod_uid) {
                Ok(Some(sandbox)) => sandboxes.push(sandbox),
                Ok(None) => self.remove(&pod_uid)?,
                Err(error) => {
                    tracing::warn!(pod.uid = pod_uid, %error, "removing a sandbox of which nothing is known");
                    self.remove(&pod_uid)?;
                }
            }
        }
        Ok(sandboxes)
    }

    /// Ends the shared PID namespace, unmounts the pinned namespaces and keeps the record, as a reboot
    /// leaves it.
    pub fn unpin(&self, pod_uid: &str) -> Result<()> {
        let paths = self.paths(pod_uid);
        if let Some(pid) = paths.reaper_pid() {
            reaper::kill(pid, &paths.pid()).map_err(|error| removal_failed(&paths, &error))?;
        }
        for mount in paths.mounts() {
            sys::unmount(&mount).map_err(|error| removal_failed(&paths, &error))?;
        }
        Ok(())
    }

    /// Unpins the namespaces and forgets the sandbox.
    pub fn remove(&self, pod_uid: &str) -> Result<()> {
        self.unpin(pod_uid)?;
        let paths = self.paths(pod_uid);
        match fs::remove_dir_all(&paths.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(removal_failed(&paths, &error))
            }
            _ => Ok(()),
        }
    }
}

/// The UID becomes a directory's name.
fn check(spec: &SandboxSpec) -> Result<()> {
    let uid = &spec.pod.uid;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if uid.is_empty() || uid.starts_with('.') || !uid.chars().all(plain) {
        return Err(Error::Invalid(format!("{uid:?} is no pod UID")));
    }
    if spec.hostname.len() > 64 {
        let hostname = &spec.hostname;
        return Err(Error::Invalid(format!(
            "the hostname {hostname} is longer than 64 bytes"
        )));
    }
    let shares = [spec.network, spec.ipc, spec.pid].contains(&NamespaceMode::Host);
    if spec.own_users && shares {
        return Err(Error::Invalid(
            "hostUsers: false cannot be combined with hostNetwork, hostPID or hostIPC".to_owned(),
        ));
    }
    spec.sysctls
        .keys()
        .try_for_each(|name| sysctl_path(name).map(drop))
}

fn pin(spec: &SandboxSpec, ids: Option<HostIds>, paths: &Paths) -> io::Result<()> {
    let (own_network, own_uts) = (spec.network != NamespaceMode::Host, spec.has_uts());
    let host_ipc = spec.ipc == NamespaceMode::Host;
    let mut pins = Vec::new();
    if own_network {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWNET,
            name: "net",
            path: paths.net(),
        });
    }
    if own_uts {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWUTS,
            name: "uts",
            path: paths.uts(),
        });
    }
    if !host_ipc {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWIPC,
            name: "ipc",
            path: paths.ipc(),
        });
    }
    if pins.is_empty() {
        return Ok(());
    }
    let hostname = spec.hostname.clone();
    let name = move || {
        if own_network {
            sys::loopback_up()?;
        }
        if own_uts {
            nix::unistd::sethostname(&hostname)?;
        }
        Ok(())
    };
    let sysctls = spec.sysctls.clone();
    let Some(ids) = ids else {
        return sys::pin_namespaces(pins, move || {
            name()?;
            set_sysctls(&sysctls, |path, value| fs::write(path, value))
        });
    };
    namespace::pin(ids, &paths.user(), pins, name)?;
    // Groups in them are the namespace's own.
    let others = [paths.net(), paths.uts(), paths.ipc()];
    set_sysctls(&sysctls, |path, value| {
        namespace::write_as_root(&paths.user(), &others, path, value.to_owned())
    })
}

fn set_sysctls(
    sysctls: &BTreeMap<String, String>,
    write: impl Fn(PathBuf, &str) -> io::Result<()>,
) -> io::Result<()> {
    for (name, value) in sysctls {
        let path = sysctl_path(name).map_err(io::Error::other)?;
        write(path, value).map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("setting sysctl {name} to {value}: {error}"))
        })?;
    }
    Ok(())
}

/// The number is noted before anything else can fail, so that the process can always be found.
fn start_reaper(spec: &SandboxSpec, paths: &Paths) -> io::Result<u32> {
    let mut inside = Inside {
        users: spec.own_users.then(|| paths.user()),
        others: Vec::new(),
    };
    if spec.network != NamespaceMode::Host {
        inside.others.push(paths.net());
    }
    if spec.has_uts() {
        inside.others.push(paths.uts());
    }
    if spec.ipc != NamespaceMode::Host {
        inside.others.push(paths.ipc());
    }
    let note = paths.reaper();
    reaper::create(&paths.pid(), inside, paths.dir.join("empty"), |pid| {
        fs::write(&note, pid.to_string())
    })
}

fn is_alive(spec: &SandboxSpec, paths: &Paths) -> bool {
    let processes = spec.pid != NamespaceMode::Pod
        || paths
            .reaper_pid()
            .is_some_and(|pid| reaper::is_alive(pid, &paths.pid()));
    let network = spec.network == NamespaceMode::Host || sys::is_pinned(&paths.net());
    let uts = !spec.has_uts() || sys::is_pinned(&paths.uts());
    let users = !spec.own_users || sys::is_pinned(&paths.user());
    processes
        && users
        && network
        && uts
        && (spec.ipc == NamespaceMode::Host || sys::is_pinned(&paths.ipc()))
}

/// The file of a sysctl, written with dots or slashes. Only namespaced ones: the others would
/// change the host.
fn sysctl_path(name: &str) -> Result<PathBuf> {
    let dotted = name.replace('/', ".");
    let namespaced = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| dotted.starts_with(prefix))
        || dotted == "kernel.sem";
    // With slashes, a dot belongs to a name (an interface `eth0.100`).
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    if !namespaced
        || relative
            .split('/')
            .any(|part| part.is_empty() || part == "..")
    {
        return Err(Error::Invalid(format!(
            "sysctl {name} is not namespaced; a pod may set net.*, kernel.shm*, kernel.msg*, \
             kernel.sem and fs.mqueue.*"
        )));
    }
    Ok(Path::new("/proc/sys").join(relative))
}

/// Appears whole or not at all.
fn write_record(path: &Path, sandbox: &Sandbox) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, serde_json::to_vec(sandbox)?)?;
    fs::rename(unfinished, path)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Failed {
        what: format!("reading {}", path.display()),
        reason: error.to_string(),
    }
}

fn removal_failed(paths: &Paths, error: &io::Error) -> Error {
    Error::Failed {
        what: format!("removing the sandbox {}", paths.dir.display()),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use peapod_api::attach::PodRef;

    use super::*;
    use crate::runtime::{QosClass, Resources};

    fn spec(uid: &str) -> SandboxSpec {
        SandboxSpec {
            pod: PodRef {
                namespace: "default".into(),
                name: "web".into(),
                uid: uid.into(),
            },
            hostname: "web-0".into(),
            network: NamespaceMode::Pod,
            own_hostname: false,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            own_users: false,
            sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())]),
            qos: QosClass::BestEffort,
            resources: Resources::default(),
            runtime_handler: None,
            labels: BTreeMap::new(),
        }
    }

    fn sandboxes_in(dir: &Path) -> Sandboxes {
        Sandboxes::new(dir.to_path_buf(), Ranges::default_for(2))
    }

    fn inside(sandbox: &Sandbox, paths: &Paths, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!(
                "--net={}",
                sandbox.netns.as_ref().unwrap().display()
            ))
            .arg(format!("--uts={}", paths.uts().display()))
            .args(["sh", "-c", command])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn namespaces_are_pinned_prepared_and_unpinned() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = sandboxes_in(dir.path());
        let made = sandboxes
            .create(&spec("u1"), Timestamp::UNIX_EPOCH)
            .unwrap();
        let paths = sandboxes.paths("u1");
        assert_eq!(inside(&made, &paths, "hostname"), "web-0");
        assert!(inside(&made, &paths, "ip -o link show lo").contains("UP"));
        assert_eq!(
            inside(
                &made,
                &paths,
                "sysctl -n net.ipv4.ip_unprivileged_port_start"
            ),
            "0"
        );

        let again = sandboxes.create(&spec("u1"), Timestamp::MAX).unwrap();
        assert_eq!(again, made, "creating what exists gives what exists");
        assert_eq!(sandboxes.list().unwrap(), vec![made]);

        sandboxes.remove("u1").unwrap();
        sandboxes.remove("u1").unwrap();
        assert_eq!(sandboxes.list().unwrap(), vec![]);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(
            !mounts.contains(&*dir.path().to_string_lossy()),
            "a mount stayed behind"
        );
    }

    #[test]
    fn with_the_hosts_network_a_pod_may_have_a_hostname_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = sandboxes_in(dir.path());
        let host = SandboxSpec {
            network: NamespaceMode::Host,
            own_hostname: true,
            sysctls: BTreeMap::new(),
            ..spec("u1")
        };
        let made = sandboxes.create(&host, Timestamp::UNIX_EPOCH).unwrap();
        assert!(made.alive && made.netns.is_none());
        let output = Command::new("nsenter")
            .arg(format!("--uts={}", sandboxes.paths("u1").uts().display()))
            .arg("hostname")
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"web-0\n");
        assert_eq!(sandboxes.list().unwrap(), vec![made]);
        sandboxes.remove("u1").unwrap();
    }

    #[test]
    fn a_reboot_leaves_a_dead_sandbox_that_can_be_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = sandboxes_in(dir.path());
        sandboxes
            .create(&spec("u1"), Timestamp::UNIX_EPOCH)
            .unwrap();
        for mount in sandboxes.paths("u1").mounts() {
            sys::unmount(&mount).unwrap();
        }
        assert!(!sandboxes.list().unwrap()[0].alive);
        assert!(sandboxes.create(&spec("u1"), Timestamp::MAX).unwrap().alive);
        sandboxes.remove("u1").unwrap();
    }

    #[test]
    fn what_a_crash_left_half_made_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = sandboxes_in(dir.path());
        sandboxes
            .create(&spec("u1"), Timestamp::UNIX_EPOCH)
            .unwrap();
        fs::remove_file(sandboxes.paths("u1").record()).unwrap();
        assert_eq!(sandboxes.list().unwrap(), vec![]);
        assert!(!dir.path().join("u1").exists());
    }

    #[test]
    fn pods_with_user_namespaces_have_ids_of_their_own() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = sandboxes_in(dir.path());
        let open =
            |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mapped = |uid: &str| SandboxSpec {
            own_users: true,
            pid: NamespaceMode::Pod,
            sysctls: BTreeMap::from([
                ("kernel.msgmax".into(), "4096".into()),
                ("net.ipv4.ping_group_range".into(), "0 1000".into()),
            ]),
            ..spec(uid)
        };
        let make = |uid: &str| sandboxes.create(&mapped(uid), Timestamp::UNIX_EPOCH);
        open(0o700);
        let error = make("u1").unwrap_err().to_string();
        assert!(error.contains("chmod o+x"), "{error}");
        open(0o711);
        let (one, two) = (make("u1").unwrap(), make("u2").unwrap());
        let first = |sandbox: &Sandbox| sandbox.ids.unwrap().first;
        assert_eq!((first(&one), first(&two)), (65_536, 131_072));
        assert!(one.alive && sandboxes.get("u1").unwrap() == Some(one));
        let error = make("u3").unwrap_err().to_string();
        assert!(error.contains("all ranges of IDs are taken"), "{error}");
        sandboxes.remove("u3").unwrap();

        let paths = sandboxes.paths("u2");
        let output = Command::new("nsenter")
            .arg(format!("--user={}", paths.user().display()))
            .arg(format!("--net={}", paths.net().display()))
            .arg(format!("--uts={}", paths.uts().display()))
            .arg(format!("--ipc={}", paths.ipc().display()))
            .args([
                "sh",
                "-c",
                "hostname; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ping_group_range",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            ["web-0", "4096", "0", "1000"]
        );

        // An agent that comes back knows who has what, and what is free again is given again.
        sandboxes.remove("u1").unwrap();
        let sandboxes = sandboxes_in(dir.path());
        let three = sandboxes.create(&mapped("u3"), Timestamp::UNIX_EPOCH);
        assert_eq!(first(&three.unwrap()), 65_536);
        let host = SandboxSpec {
            network: NamespaceMode::Host,
            ..mapped("u4")
        };
        let error = sandboxes.create(&host, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        for uid in ["u2", "u3"] {
            sandboxes.remove(uid).unwrap();
        }
    }

    #[test]
    fn bad_input_is_refused() {
        let sandboxes = sandboxes_in(Path::new("/nonexistent"));
        for uid in ["", "..", "a/b", ".hidden"] {
            let error = sandboxes
                .create(&spec(uid), Timestamp::UNIX_EPOCH)
                .unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{uid}: {error:?}");
        }
        for sysctl in [
            "vm.swappiness",
            "kernel.panic",
            "net.ipv4/../../kernel/panic",
            "net..x",
        ] {
            let mut spec = spec("u1");
            spec.sysctls = BTreeMap::from([(sysctl.into(), "1".into())]);
            let error = sandboxes.create(&spec, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{sysctl}: {error:?}");
        }
    }
}
