//! Network namespaces with names, as `ip netns` knows them: pinned below `/run/netns`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::statfs;

const DIR: &str = "/run/netns";
/// Magic number of the file system of namespaces.
const NSFS: i64 = 0x6e73_6673;

/// Where a namespace is pinned.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Whether a namespace is pinned at a path.
fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == NSFS)
}

/// Makes the directory a shared mount of its own, as `ip netns add` does when it finds none: done
/// later, by others, it would hide our pins below copies of them, and nobody could remove them.
fn share_directory() -> io::Result<()> {
    let (none, shared) = (None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC);
    fs::create_dir_all(DIR)?;
    if mount(none, DIR, none, shared, none).is_err() {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(DIR), DIR, none, bind, none)?;
        mount(none, DIR, none, shared, none)?;
    }
    Ok(())
}

/// Makes a namespace, or keeps the one that is there; tells whether it is new.
pub fn ensure(name: &str) -> Result<bool> {
    let path = path(name);
    if is_pinned(&path) {
        return Ok(false);
    }
    let make = || -> io::Result<()> {
        share_directory()?;
        File::create(&path)?;
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // `accept_dad`: addresses are of use at once, and nobody else can have them.
            for link in ["all", "default"] {
                let key = format!("/proc/sys/net/ipv6/conf/{link}/accept_dad");
                if Path::new(&key).exists() {
                    fs::write(key, "0")?;
                }
            }
            let own = Some("/proc/thread-self/ns/net");
            mount(own, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
    };
    make().with_context(|| format!("cannot make the network namespace {}", path.display()))?;
    Ok(true)
}

/// Names of the namespaces that begin so.
pub fn list(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// Unpins a namespace: it ends, and all its links with it, when its last process does.
pub fn remove(name: &str) -> Result<()> {
    let path = path(name);
    if is_pinned(&path) {
        umount2(&path, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unpin the network namespace {}", path.display()))?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the directory of namespaces if nobody has one.
pub fn tidy() {
    let empty = fs::read_dir(DIR).is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        // Whoever makes a namespace meanwhile makes the mount and the directory again.
        let _ = umount2(DIR, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(DIR);
    }
}

/// Runs `work` inside a pinned namespace, on a thread of its own. Sockets opened inside stay
/// there.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let path = path(name);
    let enter = || {
        let namespace = File::open(&path)?;
        in_thread(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    };
    enter().with_context(|| format!("cannot work in the network namespace {}", path.display()))
}

/// No other thread of this process ever changes its namespace.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_pinned_kept_and_removed() {
        let name = format!("peapod-test-{}", std::process::id());
        assert!(ensure(&name).unwrap());
        assert!(!ensure(&name).unwrap(), "it is there");
        assert_eq!(list(&name), std::slice::from_ref(&name));
        let of = |path: &str| fs::read_link(path);
        let inner = inside(&name, || of("/proc/thread-self/ns/net")).unwrap();
        assert_ne!(inner, of("/proc/thread-self/ns/net").unwrap());
        remove(&name).unwrap();
        remove(&name).unwrap();
        assert!(list(&name).is_empty());
    }

    #[test]
    fn others_may_make_namespaces_after_us() {
        in_thread(|| {
            // A /run that nobody has touched, seen by this thread and its children only.
            unshare(CloneFlags::CLONE_NEWNS)?;
            let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
            mount(none, "/", none, private, none)?;
            mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
            assert!(ensure("ours").unwrap());
            let ip = std::process::Command::new("ip")
                .args(["netns", "add", "theirs"])
                .status()?;
            assert!(ip.success());
            remove("ours").unwrap();
            assert_eq!(list(""), ["theirs"]);
            remove("theirs").unwrap();
            tidy();
            assert!(!Path::new(DIR).exists());
            Ok(())
        })
        .unwrap();
    }
}
