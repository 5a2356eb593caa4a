//! `subPath`: a part of a volume, found without leaving the volume.
//!
//! A container may put links into a volume that it shares. So the path is resolved by the kernel
//! with the volume as its limit (`openat2` with `RESOLVE_BENEATH`), and what was opened is
//! bind-mounted by its descriptor: a link that is swapped in afterwards changes nothing.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::{Error, mounts};

fn open_beneath(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Opens a part of a volume, making the directories that are missing.
fn open(root: &Path, sub_path: &Path) -> Result<OwnedFd, Error> {
    let fault = |e: Errno| Error::io("cannot use subPath", &root.join(sub_path), e);
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
    let root_fd = nix::fcntl::open(root, flags, Mode::empty()).map_err(fault)?;
    match open_beneath(&root_fd, sub_path) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(fault),
    }
    let mut walked = PathBuf::new();
    for part in sub_path.components() {
        let parent = match walked.as_os_str().is_empty() {
            true => root_fd
                .try_clone()
                .map_err(|e| Error::io("cannot open", root, e))?,
            false => open_beneath(&root_fd, &walked).map_err(fault)?,
        };
        walked.push(part);
        match mkdirat(
            &parent,
            Path::new(part.as_os_str()),
            Mode::from_bits_truncate(0o750),
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(fault(e)),
        }
    }
    open_beneath(&root_fd, sub_path).map_err(fault)
}

/// Mounts a part of a volume on `target` and gives that path. Repeating it changes nothing.
pub fn place(root: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, Error> {
    let sub_path = Path::new(sub_path);
    let inside = sub_path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(Error::io("cannot use subPath", sub_path, Errno::EINVAL));
    }
    let source = open(root, sub_path)?;
    let directory = fstat(&source)
        .map(|stat| {
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
        })
        .map_err(|e| Error::io("cannot stat", root, e))?;
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(|e| Error::io("cannot create", parent, e))?;
    if target.exists() {
        // A mount of an earlier run of the container; the part may be another file by now.
        mounts::unmount_below(target)?;
    }
    let made = if directory {
        fs::create_dir_all(target)
    } else {
        fs::File::options()
            .create(true)
            .append(true)
            .open(target)
            .map(drop)
    };
    made.map_err(|e| Error::io("cannot create", target, e))?;
    mounts::bind_open(source, target)?;
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        fs::create_dir_all(root.join("real")).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        symlink("real", root.join("good")).unwrap();
        symlink("../secret", root.join("bad")).unwrap();
        symlink("/etc", root.join("worse")).unwrap();
        assert!(open(&root, Path::new("good")).is_ok());
        assert!(open(&root, Path::new("new/deep")).is_ok());
        assert!(root.join("new/deep").is_dir());
        assert!(open(&root, Path::new("bad")).is_err());
        assert!(open(&root, Path::new("worse")).is_err());
        assert!(open(&root, Path::new("bad/x")).is_err());
        assert!(!dir.path().join("secret/x").exists());
        assert!(place(&root, "../secret", &dir.path().join("t")).is_err());
    }
}
