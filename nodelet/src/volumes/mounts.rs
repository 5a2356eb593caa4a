//! The mounts that the node agent makes, and how they go.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Error;

/// Whether another file system is mounted on a directory.
pub fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev());
    match (device(dir), dir.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
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
