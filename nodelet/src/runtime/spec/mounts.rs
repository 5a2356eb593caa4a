//! What is mounted in a container: the standard file systems, then the pod's volumes.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::Surroundings;
use crate::runtime::{ContainerSpec, Error, Mount, Propagation, Result};

/// Every mount, parents before children. A volume takes the place of a standard mount at the same
/// path.
pub fn mounts(spec: &ContainerSpec, around: &Surroundings) -> Result<Vec<OciMount>> {
    let volumes = spec.mounts.iter().map(volume).collect::<Result<Vec<_>>>()?;
    let mut mounts = standard(spec, around);
    mounts.retain(|m| {
        !volumes
            .iter()
            .any(|volume| volume.destination() == m.destination())
    });
    mounts.extend(volumes);
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

/// How mounts of the host must reach the container's root for the volumes' propagation to work.
pub fn rootfs_propagation(spec: &ContainerSpec) -> Option<&'static str> {
    let any = |wanted| spec.mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else if any(Propagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

fn standard(spec: &ContainerSpec, around: &Surroundings) -> Vec<OciMount> {
    let writable = if spec.security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", writable],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", writable],
        ),
    ];
    let shm = around.shm.as_deref().unwrap_or(Path::new("/dev/shm"));
    mounts.push(bind("/dev/shm", shm, &["rbind", "rprivate", "rw"]));
    mounts
}

fn volume(volume: &Mount) -> Result<OciMount> {
    for path in [&volume.destination, &volume.source] {
        if !path.is_absolute() {
            return Err(Error::Invalid(format!(
                "{} is no absolute path",
                path.display()
            )));
        }
    }
    let propagation = match volume.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match (volume.read_only, volume.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind", propagation, access];
    options.extend(volume.flags.iter().map(String::as_str));
    Ok(bind(&volume.destination, &volume.source, &options))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(
            options.iter().map(|option| (*option).to_owned()).collect(),
        ));
    mount
}

fn bind(destination: impl AsRef<Path>, source: &Path, options: &[&str]) -> OciMount {
    let mut bind = mount("", "bind", "", options);
    bind.set_destination(destination.as_ref().to_path_buf())
        .set_source(Some(source.to_path_buf()));
    bind
}
