//! Control groups: where a pod's stands, its limits, and what it uses.
//!
//! The two generations of the kernel interface differ in their files, not in what we do with
//! them; [`v1`] and [`v2`] hold the differences, and nothing outside of this folder knows
//! them. The tree is `/PARENT/kubepods[/burstable|/besteffort]/podUID/CONTAINER`; containers'
//! own groups are made by the OCI runtime.

pub mod moves;
pub mod refusals;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, QosClass, Resources, Result, Stats};

/// The kernel takes the last processes and children out of a group in the background, and tells nobody
/// when it is done; until then the group is busy.
const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// The cgroup hierarchies of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy per controller: its mount point by the controller's name.
    V1(BTreeMap<String, PathBuf>),
    /// One hierarchy for all.
    V2(PathBuf),
}

// === impl Cgroups ===

impl Cgroups {
    /// The hierarchies that this process sees.
    pub fn detect() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(|e| failed("reading", Path::new(path), &e))?;
        Self::parse(&text).ok_or_else(|| {
            Error::Invalid("no cgroup hierarchy with a memory controller is mounted".into())
        })
    }

    /// Reads a `mountinfo`. A host that mounts both generations has its controllers in the first.
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut controllers = BTreeMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount_point) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => unified = unified.or(Some(mount_point)),
                Some("cgroup") => {
                    for name in right.nth(1).unwrap_or_default().split(',') {
                        controllers
                            .entry(name.to_owned())
                            .or_insert_with(|| mount_point.clone());
                    }
                }
                _ => {}
            }
        }
        match (controllers.contains_key("memory"), unified) {
            (true, unified) => {
                // Without controllers, but the OCI runtime makes its groups there too.
                controllers.extend(unified.map(|dir| ("unified".to_owned(), dir)));
                Some(Self::V1(controllers))
            }
            (false, Some(mount_point)) => Some(Self::V2(mount_point)),
            (false, None) => None,
        }
    }

    /// Whether this is the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// Whether swap is accounted.
    pub fn swap_accounting(&self) -> bool {
        match self {
            Self::V1(controllers) => controllers
                .get("memory")
                .is_some_and(|dir| dir.join("memory.memsw.limit_in_bytes").exists()),
            // The root group has no such file; nearly every kernel accounts swap.
            Self::V2(_) => Path::new("/proc/swaps").exists(),
        }
    }

    /// Makes a group with these limits, or changes those of an existing one.
    pub fn apply(&self, group: &Path, resources: &Resources) -> Result<()> {
        let group = relative(group);
        match self {
            Self::V1(controllers) => v1::apply(controllers, group, resources),
            Self::V2(root) => v2::apply(root, group, resources),
        }
    }

    /// Puts a process into a group below one that [`Cgroups::apply`] made.
    pub fn join(&self, group: &Path, pid: u32) -> Result<()> {
        let group = relative(group);
        let dirs: Vec<PathBuf> = match self {
            Self::V1(controllers) => v1::limiting(controllers, group),
            Self::V2(root) => vec![root.join(group)],
        };
        dirs.iter().try_for_each(|dir| {
            fs::create_dir_all(dir).map_err(|error| failed("making", dir, &error))?;
            write(dir, "cgroup.procs", pid)
        })
    }

    /// Removes a group and those below it. Succeeds when it is gone; fails while a process is in
    /// it.
    pub fn remove(&self, group: &Path) -> Result<()> {
        let group = relative(group);
        let dirs: Vec<PathBuf> = match self {
            Self::V1(controllers) => controllers.values().map(|dir| dir.join(group)).collect(),
            Self::V2(root) => vec![root.join(group)],
        };
        dirs.iter()
            .try_for_each(|dir| remove_tree(dir).map_err(|e| failed("removing", dir, &e)))
    }

    /// What the processes in a group use.
    pub fn stats(&self, group: &Path) -> Result<Stats> {
        let group = relative(group);
        match self {
            Self::V1(controllers) => v1::stats(controllers, group),
            Self::V2(root) => v2::stats(root, group),
        }
    }

    /// How many processes of a group the kernel has killed for memory; 0 when the group is gone.
    pub fn oom_kills(&self, group: &Path) -> u64 {
        let group = relative(group);
        match self {
            Self::V1(controllers) => v1::oom_kills(controllers, group),
            Self::V2(root) => v2::oom_kills(root, group),
        }
    }

    /// How often a process of a group could not be made, because it has as many as it may; 0 when the group is
    /// gone. Kernels before 6.11, and of the first generation all, count where the process was to be made, not where
    /// the limit is: the groups of containers count, too.
    pub fn refused_forks(&self, group: &Path) -> u64 {
        let refused = |file: &PathBuf| numbers(file).get("max").copied();
        self.fork_events(group).iter().filter_map(refused).sum()
    }

    /// The files in which the kernel counts what [`Cgroups::refused_forks`] tells: of the group and of those
    /// below it.
    fn fork_events(&self, group: &Path) -> Vec<PathBuf> {
        let group = relative(group);
        let dir = match self {
            Self::V1(controllers) => match controllers.get("pids") {
                Some(root) => root.join(group),
                None => return Vec::new(),
            },
            Self::V2(root) => root.join(group),
        };
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = below.map(|entry| entry.path());
        let all = [dir].into_iter().chain(below.filter(|path| path.is_dir()));
        all.map(|dir| dir.join("pids.events")).collect()
    }
}

/// The group of a node's pods.
pub fn node_group(parent: &str) -> PathBuf {
    Path::new("/").join(parent.trim_matches('/'))
}

/// The group of a pod.
pub fn pod_group(parent: &str, qos: QosClass, pod_uid: &str) -> PathBuf {
    let mut group = node_group(parent).join("kubepods");
    match qos {
        QosClass::Guaranteed => {}
        QosClass::Burstable => group.push("burstable"),
        QosClass::BestEffort => group.push("besteffort"),
    }
    group.join(format!("pod{pod_uid}"))
}

/// Group paths are absolute within each hierarchy.
fn relative(group: &Path) -> &Path {
    group.strip_prefix("/").unwrap_or(group)
}

/// Directories only: the files of a cgroup go with it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            other => return other,
        }
    }
    fs::remove_dir(dir)
}

fn write(dir: &Path, file: &str, value: impl ToString) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(|error| failed("writing", &path, &error))
}

/// A file with one number; absent or `max` is `None`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file of lines `key number`.
fn numbers(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn absent(group: &Path) -> Error {
    Error::NotFound {
        kind: "cgroup",
        id: group.display().to_string(),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::Failed {
        what: format!("{what} {}", path.display()),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
