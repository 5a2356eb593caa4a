//! What a stopped node agent must let go of: the volumes that it has mounted.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Unmounts everything at and below a node's data directory, the innermost first. Files stay. No agent
/// may run on the node, and its containers must have ended.
///
/// # Errors
/// When the kernel refuses, with the path.
pub fn cleanup(data_dir: &Path) -> io::Result<()> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    for point in mounts_below(&table, data_dir) {
        unmount(&point).map_err(|errno| {
            io::Error::other(format!("cannot unmount {}: {errno}", point.display()))
        })?;
    }
    Ok(())
}

/// What others still use, such as a storage driver that listens there, goes when they let go of it.
fn unmount(point: &Path) -> nix::Result<()> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH),
        other => other,
    }
}

/// The mount points at and below a directory, the latest (and so the innermost) first; proc(5) has the
/// format.
fn mounts_below(table: &[u8], dir: &Path) -> Vec<PathBuf> {
    let lines = table.split(|&byte| byte == b'\n');
    let points = lines.filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    let mut below: Vec<PathBuf> = points
        .map(unescape)
        .filter(|point| point.starts_with(dir))
        .collect();
    below.reverse();
    below
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = match (byte, after.get(..3)) {
            (b'\\', Some(digits)) => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        match octal {
            Some(value) => {
                out.push(value);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_first_and_nothing_else() {
        let table = b"1 0 0:1 / / rw - ext4 a rw\n\
            5 1 0:5 / /data/node rw - ext4 e rw\n\
            2 1 0:2 / /data/node/pods/a rw - tmpfs b rw\n\
            3 2 0:3 / /data/node/pods/a/with\\040blank rw - tmpfs c rw\n\
            4 1 0:4 / /data/nodes rw - tmpfs d rw\n";
        let found = mounts_below(table, Path::new("/data/node"));
        let expected = [
            "/data/node/pods/a/with blank",
            "/data/node/pods/a",
            "/data/node",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
