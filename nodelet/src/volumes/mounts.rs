//! The mounts that the node agent makes, and how they go.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Error;
use crate::runtime::sys;

/// Whether something is mounted on a path: a file system, or a part of one (a bind mount).
pub fn is_mount_point(path: &Path) -> bool {
    sys::is_mount_root(path).unwrap_or(false)
}

/// Makes a directory a mount of its own that is shared with its peers: what a container mounts below
/// it (`mountPropagation: Bidirectional`) appears on the host then.
pub fn share(dir: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    if !is_mount_point(dir) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(dir), dir, none, flags, none)
            .map_err(|e| Error::io("cannot bind-mount on itself", dir, e))?;
    }
    mount(none, dir, none, MsFlags::MS_SHARED, none)
        .map_err(|e| Error::io("cannot share the mounts below", dir, e))
}

/// Mounts a tmpfs on a directory; false if one is there already.
pub fn tmpfs(dir: &Path, size_bytes: Option<i64>, mode: u32) -> Result<bool, Error> {
    if is_mount_point(dir) {
        return Ok(false);
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(|e| Error::io("cannot mount a tmpfs on", dir, e))?;
    Ok(true)
}

/// Mounts an open file or directory, whatever its name is by now.
pub fn bind_open(source: impl AsFd, target: &Path) -> Result<(), Error> {
    let path = format!("/proc/self/fd/{}", source.as_fd().as_raw_fd());
    let none: Option<&str> = None;
    mount(
        Some(path.as_str()),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .map_err(|e| Error::io("cannot bind-mount on", target, e))
}

/// Takes a mount away; it goes for good when its last user does.
pub fn unmount(target: &Path) -> Result<(), Error> {
    umount2(target, MntFlags::MNT_DETACH).map_err(|e| Error::io("cannot unmount", target, e))
}

/// The mount points at or below a directory, innermost first, in the text of
/// `/proc/self/mountinfo`.
pub fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    found.reverse();
    found
}

/// `\040` and its like.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after
            .get(..3)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// Takes away every mount at or below a directory.
pub fn unmount_below(dir: &Path) -> Result<(), Error> {
    let path = Path::new("/proc/self/mountinfo");
    let mountinfo = fs::read_to_string(path).map_err(|e| Error::io("cannot read", path, e))?;
    below(&mountinfo, dir)
        .iter()
        .try_for_each(|point| unmount(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_is_a_mount_point() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(&target) && !is_mount_point(&dir.path().join("none")));
        let none: Option<&str> = None;
        mount(Some(&source), &target, none, MsFlags::MS_BIND, none).unwrap();
        let found = is_mount_point(&target);
        unmount(&target).unwrap();
        assert!(found, "of the same file system, too");
        assert!(!is_mount_point(&target));
    }

    #[test]
    fn finds_the_mounts_below() {
        let text = "22 1 0:1 / / rw - ext4 /dev/a rw\n\
                    30 22 0:5 / /data/pods/u/volumes/a rw - tmpfs tmpfs rw\n\
                    31 30 0:6 / /data/pods/u/volumes/a/b\\040c rw - tmpfs tmpfs rw\n\
                    32 22 0:7 / /data/pods/u2 rw - tmpfs tmpfs rw\n";
        assert_eq!(
            below(text, Path::new("/data/pods/u")),
            [
                PathBuf::from("/data/pods/u/volumes/a/b c"),
                PathBuf::from("/data/pods/u/volumes/a")
            ]
        );
    }
}
