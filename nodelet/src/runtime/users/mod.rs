//! User namespaces of pods (`hostUsers: false`): root in such a pod is nobody on the host.
//!
//! A pod has a range of the host's IDs for itself ([`ids`]), and a namespace in which they are 0, 1, 2, ...
//! ([`namespace`]), which owns the pod's other namespaces. Files keep their owners on disk: images and
//! volumes are mounted so that the owners are shifted ([`shifted`]), which no OCI runtime needs
//! to know of.

pub mod ids;
pub mod namespace;
pub mod shifted;

use std::path::Path;

pub use ids::{HostIds, Ranges};

/// Oldest kernel with mapped owners in overlays' layers and in memory file systems.
const KERNEL: (u32, u32) = (6, 3);

/// Why this machine's pods cannot have user namespaces of their own, if they cannot.
pub fn missing() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    if version(&kernel).is_none_or(|version| version < KERNEL) {
        let (major, minor) = KERNEL;
        let kernel = kernel.trim();
        return Some(format!(
            "it needs Linux {major}.{minor} or newer, this is {kernel}"
        ));
    }
    let most = read("/proc/sys/user/max_user_namespaces");
    (most.trim() == "0" || most.is_empty()).then(|| {
        "the host allows no user namespaces; raise the sysctl user.max_user_namespaces".to_owned()
    })
}

/// Which folder on the way to this one lets nobody but its owner through, if one does: root of a user
/// namespace is not its owner.
pub fn closed(dir: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let is_closed = |dir: &&Path| {
        let meta = std::fs::metadata(dir);
        meta.is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0)
    };
    let closed = dir.ancestors().find(is_closed)?.display();
    Some(format!(
        "root of a user namespace cannot pass through {closed}; allow it to (chmod o+x {closed})"
    ))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels() {
        for (release, expected) in [
            ("6.18.44-fc-v657\n", Some((6, 18))),
            ("5.4", Some((5, 4))),
            ("6.3-rc1", Some((6, 3))),
            ("", None),
            ("six", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
