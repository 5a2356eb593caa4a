//! What the host is like, and what an image's root file system says: the inputs of the
//! specification.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::runtime::cgroups::Cgroups;
use crate::runtime::spec::capabilities::SYS_RESOURCE;
use crate::runtime::spec::user::Accounts;
use crate::runtime::spec::{Host, HostDevice};
use crate::runtime::users::shifted::Overlay;
use crate::runtime::{Device, Error, Result};

use super::state::RootfsMount;

/// Largest `/etc/passwd` or `/etc/group` that is read from an image.
const ACCOUNTS_MAX: u64 = 1 << 20;
/// Largest seccomp profile.
const PROFILE_MAX: u64 = 4 << 20;
/// Directories below `/dev` whose nodes are per container.
const DEV_SKIPPED: [&str; 5] = ["pts", "shm", "mqueue", "fd", "console"];
/// Most device nodes that a privileged container gets.
const DEVICES_MAX: usize = 4096;

/// Looks at this host.
pub fn detect(cgroups: &Cgroups) -> Host {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let may_lower = mask("CapEff:").unwrap_or(0) & (1 << SYS_RESOURCE) != 0;
    let own_adj = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    Host {
        capabilities: mask("CapBnd:").unwrap_or(0),
        oom_score_adj_min: if may_lower {
            -1000
        } else {
            own_adj.trim().parse().unwrap_or(0)
        },
        swap_accounting: cgroups.swap_accounting(),
        apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y')),
        oom_group: cgroups.is_v2(),
    }
}

/// Looks up devices that a container wants.
pub fn devices(wanted: &[Device]) -> Result<Vec<HostDevice>> {
    let look_up = |device: &Device| {
        let metadata = fs::metadata(&device.host_path).map_err(|error| {
            Error::Invalid(format!("device {}: {error}", device.host_path.display()))
        })?;
        let path = device.container_path.clone();
        host_device(path, &metadata, &device.permissions)
            .ok_or_else(|| Error::Invalid(format!("{} is no device", device.host_path.display())))
    };
    wanted.iter().map(look_up).collect()
}

/// Every device of the host, for a privileged container.
pub fn all_devices() -> Vec<HostDevice> {
    let mut devices = Vec::new();
    collect_devices(Path::new("/dev"), &mut devices);
    devices
}

fn collect_devices(dir: &Path, devices: &mut Vec<HostDevice>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let skipped = DEV_SKIPPED.iter().any(|name| entry.file_name() == *name);
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if skipped || devices.len() >= DEVICES_MAX {
            continue;
        }
        if kind.is_dir() {
            collect_devices(&entry.path(), devices);
        } else if let Ok(metadata) = entry.metadata()
            && let Some(device) = host_device(entry.path(), &metadata, "rwm")
        {
            devices.push(device);
        }
    }
}

fn host_device(path: PathBuf, metadata: &fs::Metadata, access: &str) -> Option<HostDevice> {
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(HostDevice {
        path,
        block: kind.is_block_device(),
        major: libc::major(metadata.rdev()).into(),
        minor: libc::minor(metadata.rdev()).into(),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: if access.is_empty() {
            "rwm".to_owned()
        } else {
            access.to_owned()
        },
    })
}

/// A seccomp profile from a file.
pub fn seccomp_profile(path: &Path) -> Result<oci_spec::runtime::LinuxSeccomp> {
    let bad = |reason: String| {
        Error::Invalid(format!(
            "cannot load seccomp profile {}: {reason}",
            path.display()
        ))
    };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    file.take(PROFILE_MAX)
        .read_to_end(&mut text)
        .map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

/// The account files of a root file system that is not mounted, from its layers, the top one
/// first. Symbolic links are not followed: an image must not make us read the host's files.
pub fn accounts(rootfs: &[RootfsMount]) -> Accounts {
    let layers = layers(rootfs);
    let read = |name: &str| {
        let found = layers.iter().map(|layer| read_in_layer(layer, name));
        found
            .into_iter()
            .find_map(|result| result.ok().flatten())
            .unwrap_or_default()
    };
    Accounts {
        passwd: read("passwd"),
        group: read("group"),
    }
}

/// The layers of a root file system that is an overlay.
pub fn overlay(mount: &RootfsMount) -> Option<Overlay> {
    let mut overlay = Overlay::default();
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => {
                overlay.lower = dirs.split(':').map(PathBuf::from).collect()
            }
            Some(("upperdir", dir)) => overlay.upper = PathBuf::from(dir),
            Some(("workdir", dir)) => overlay.work = PathBuf::from(dir),
            _ => overlay.options.push(option.clone()),
        }
    }
    let whole = mount.kind == "overlay" && !overlay.lower.is_empty();
    whole.then_some(overlay)
}

/// The directories that make up a root file system, the top one first.
fn layers(rootfs: &[RootfsMount]) -> Vec<PathBuf> {
    let Some(mount) = rootfs.first() else {
        return Vec::new();
    };
    match overlay(mount) {
        Some(Overlay { upper, lower, .. }) => [upper].into_iter().chain(lower).collect(),
        None => vec![PathBuf::from(&mount.source)],
    }
}

/// The file's text; empty when this layer deletes it; `None` when the layers below decide.
fn read_in_layer(layer: &Path, name: &str) -> io::Result<Option<String>> {
    let etc = layer.join("etc");
    match fs::symlink_metadata(&etc) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Ok(Some(String::new())),
        Err(_) => return Ok(None),
    }
    let path = etc.join(name);
    let Ok(metadata) = fs::symlink_metadata(&path) else {
        return Ok(None);
    };
    if !metadata.is_file() {
        return Ok(Some(String::new()));
    }
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    let mut bytes = Vec::new();
    file.take(ACCOUNTS_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The OCI runtimes that containerd's runc shim can use and that people install.
const OCI_RUNTIMES: [&str; 3] = ["crun", "runc", "youki"];

/// Those that this machine has.
pub fn oci_runtimes() -> Vec<String> {
    let present = OCI_RUNTIMES.iter().filter(|name| is_program(name));
    present.map(|name| (*name).to_owned()).collect()
}

/// The quickest that this machine has.
pub fn default_oci_runtime() -> &'static str {
    match is_program("crun") {
        true => "crun",
        false => "runc",
    }
}

/// Whether a name, not a path, is a program that can be found.
pub fn is_program(name: &str) -> bool {
    let plain = !name.is_empty() && !name.contains('/');
    let path = std::env::var_os("PATH").unwrap_or_default();
    plain && std::env::split_paths(&path).any(|dir| is_executable(&dir.join(name)))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_from_the_topmost_layer_and_never_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |n: &str| dir.path().join(n);
        for n in ["upper", "middle", "lower"] {
            fs::create_dir_all(layer(n).join("etc")).unwrap();
        }
        fs::write(layer("lower").join("etc/passwd"), "old:x:1:1::/:\n").unwrap();
        fs::write(layer("lower").join("etc/group"), "old:x:1:\n").unwrap();
        fs::write(layer("middle").join("etc/passwd"), "new:x:2:2::/:\n").unwrap();
        std::os::unix::fs::symlink("/etc/group", layer("middle").join("etc/group")).unwrap();
        let at = |n: &str| layer(n).display().to_string();
        let overlay = RootfsMount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                "index=off".into(),
                format!("upperdir={}", at("upper")),
                format!("lowerdir={}:{}", at("middle"), at("lower")),
            ],
        };
        let accounts = accounts(&[overlay]);
        assert_eq!(accounts.passwd, "new:x:2:2::/:\n");
        assert_eq!(accounts.group, "", "a link leads nowhere");
    }
}
