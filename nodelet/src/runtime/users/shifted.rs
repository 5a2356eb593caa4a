//! Mounts whose files have the owners that a pod's user namespace gives them.
//!
//! An overlay cannot be mounted so itself: its layers are, where only the mounting thread sees them, and the
//! overlay over those is then moved to where it is wanted. What is written goes to the container's
//! own layer with the owners of the host, so that layer's root must belong to the pod's root.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::HostIds;
use crate::runtime::sys;

/// An overlay: the container's own layer and those of its image, the top one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Layers that are read.
    pub lower: Vec<PathBuf>,
    /// The layer that is written to.
    pub upper: PathBuf,
    /// Its work directory.
    pub work: PathBuf,
    /// Other options.
    pub options: Vec<String>,
}

/// Mounts a file or directory, with what is mounted below it, over another of its kind, which is made;
/// `users` is the pinned user namespace. What is mounted below keeps its owners.
pub fn bind(source: &Path, target: &Path, users: &Path) -> io::Result<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::metadata(source)?.is_dir() {
        true => fs::create_dir_all(target)?,
        false => File::create(target).map(drop)?,
    }
    let copy = sys::copy_mount(source)?;
    map_owners(&copy, source, users)?;
    sys::attach_mount(copy.as_fd(), target)
}

/// Whether the owners of a volume's files cannot be shifted, but need not be either: an image, which can only be read.
pub fn is_image(source: &Path, read_only: bool) -> bool {
    let kind = statfs(source).map(|stat| stat.filesystem_type());
    read_only && kind == Ok(OVERLAYFS_SUPER_MAGIC)
}

/// What a mount forbids, as options: `nosuid`, `nodev`, `noexec`.
pub fn flags(mount: &Path) -> io::Result<Vec<String>> {
    let set = statvfs(mount)?.flags();
    let known = [
        (FsFlags::ST_NOSUID, "nosuid"),
        (FsFlags::ST_NODEV, "nodev"),
        (FsFlags::ST_NOEXEC, "noexec"),
    ];
    let own = known.into_iter().filter(|(flag, _)| set.contains(*flag));
    Ok(own.map(|(_, name)| name.to_owned()).collect())
}

/// Mounts a container's root file system at `target`, which is made.
pub fn overlay(overlay: Overlay, ids: HostIds, target: &Path, users: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let owner = fs::symlink_metadata(&overlay.upper)?;
    // An earlier attempt may have done so.
    if let (Some(user), Some(group)) = (ids.on_host(owner.uid()), ids.on_host(owner.gid())) {
        lchown(&overlay.upper, Some(user), Some(group))?;
    }
    let (target, users) = (target.to_owned(), users.to_owned());
    sys::in_thread("mount-overlay", move || {
        let here = File::open("/proc/thread-self/ns/mnt")?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let made = staged(&overlay, &target, &users)?;
        setns(here, CloneFlags::CLONE_NEWNS)?;
        sys::attach_mount(made.as_fd(), &target)
    })
}

/// The overlay, mounted nowhere. The calling thread has a mount namespace of its own, which goes with it.
fn staged(overlay: &Overlay, dir: &Path, users: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("stage"), dir, Some("tmpfs"), MsFlags::empty(), none)?;
    for (number, layer) in overlay.lower.iter().enumerate() {
        bind(layer, &dir.join(number.to_string()), users)?;
    }
    // The options must fit into a page: layers have short names here.
    nix::unistd::chdir(dir)?;
    fs::create_dir("whole")?;
    let lower: Vec<String> = (0..overlay.lower.len()).map(|n| n.to_string()).collect();
    let mut options = overlay.options.clone();
    options.extend([
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", overlay.upper.display()),
        format!("workdir={}", overlay.work.display()),
    ]);
    let data = options.join(",");
    mount(
        Some("overlay"),
        "whole",
        Some("overlay"),
        MsFlags::empty(),
        Some(data.as_str()),
    )?;
    sys::copy_mount(Path::new("whole"))
}

fn map_owners(copy: &impl AsFd, source: &Path, users: &Path) -> io::Result<()> {
    let mapped = sys::map_owners(copy.as_fd(), File::open(users)?.as_fd());
    mapped.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::other(format!(
            "the file system of {} cannot show its files' owners in a user namespace",
            source.display()
        )),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::users::namespace;

    #[test]
    fn owners_are_shifted_and_nothing_but_the_mount_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let ids = HostIds {
            first: 6_553_600,
            count: 65_536,
        };
        namespace::pin(ids, &at("user"), Vec::new(), || Ok(())).unwrap();
        for name in ["a", "b", "upper", "work"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("a/x"), "a").unwrap();
        fs::write(at("b/x"), "b").unwrap();
        fs::write(at("b/y"), "b").unwrap();
        lchown(at("b/y"), Some(1000), Some(2000)).unwrap();
        let layers = Overlay {
            lower: vec![at("a"), at("b")],
            upper: at("upper"),
            work: at("work"),
            options: vec!["index=off".into()],
        };
        let root = at("root");
        overlay(layers, ids, &root, &at("user")).unwrap();
        assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "a");
        let owner = |path: PathBuf| {
            let meta = fs::metadata(path).unwrap();
            (meta.uid(), meta.gid())
        };
        assert_eq!(owner(root.join("y")), (6_554_600, 6_555_600));
        assert_eq!(owner(root.clone()), (6_553_600, 6_553_600));
        assert_eq!(owner(at("b/y")), (1000, 2000), "on disk nothing changes");

        bind(&at("b/y"), &at("file"), &at("user")).unwrap();
        assert_eq!(owner(at("file")), (6_554_600, 6_555_600));
        assert!(is_image(&root, true) && !is_image(&root, false) && !is_image(&at("a"), true));
        let error = bind(&root, &at("again"), &at("user")).unwrap_err();
        assert!(error.to_string().contains("cannot show"), "{error}");

        for name in ["file", "root", "user"] {
            sys::unmount(&at(name)).unwrap();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
    }
}
