//! Hears of processes that the kernel refuses to a pod.
//!
//! In the second generation `pids.events` is modified with each refusal (`Documentation/admin-guide/cgroup-v2.rst`),
//! at most once in 10 ms. In the first it counts and tells nobody; then nothing is heard here, and whoever wants
//! to know looks at [`Cgroups::refused_forks`].

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;

use super::Cgroups;
use crate::runtime::sys;

/// The pods that are listened to.
pub struct Refusals {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
    pods: Mutex<HashMap<WatchDescriptor, String>>,
}

// === impl Refusals ===

impl Refusals {
    /// Of no pod yet; `None` where the kernel tells nobody.
    pub fn new(cgroups: &Cgroups) -> io::Result<Option<Self>> {
        if !cgroups.is_v2() {
            return Ok(None);
        }
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let ready = sys::wake_on_input(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Some(Self {
            inotify,
            ready,
            pods: Mutex::default(),
        }))
    }

    /// Listens to a pod's group and those that are below it now; may be repeated. What has gone meanwhile, or is
    /// one too many for `fs.inotify.max_user_watches`, is not listened to.
    pub fn listen(&self, cgroups: &Cgroups, group: &Path, pod_uid: &str) {
        let mut pods = self.pods.lock();
        for file in cgroups.fork_events(group) {
            match self.inotify.add_watch(&file, AddWatchFlags::IN_MODIFY) {
                Ok(watch) => drop(pods.insert(watch, pod_uid.to_owned())),
                Err(error) => {
                    tracing::debug!(file = %file.display(), %error, "its refusals are not heard");
                }
            }
        }
    }

    /// Listens to a pod no more. The kernel keeps what is watched of a group that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.pods.lock().retain(|watch, uid| {
            let goes = uid == pod_uid;
            if goes {
                // One that is gone already is no error.
                let _ = self.inotify.rm_watch(*watch);
            }
            !goes
        });
    }

    /// Waits for refusals; gives the pods.
    pub async fn next(&self) -> io::Result<BTreeSet<String>> {
        loop {
            let mut ready = self.ready.readable().await?;
            match self.inotify.read_events() {
                Ok(events) => {
                    let pods = self.pods.lock();
                    let pod = |watch: &WatchDescriptor| pods.get(watch).cloned();
                    let heard: BTreeSet<String> =
                        events.iter().filter_map(|event| pod(&event.wd)).collect();
                    if !heard.is_empty() {
                        return Ok(heard);
                    }
                }
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn refusals_of_a_pods_groups_are_heard_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2(dir.path().to_owned());
        let file = |path: &str| dir.path().join(path).join("pids.events");
        let count = |path: &str, number: u32| {
            std::fs::write(file(path), format!("max {number}\n")).unwrap();
        };
        for path in ["a", "a/c", "b"] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
            count(path, 0);
        }
        let refusals = Refusals::new(&cgroups).unwrap().unwrap();
        for _ in 0..2 {
            refusals.listen(&cgroups, Path::new("/a"), "a");
            refusals.listen(&cgroups, Path::new("/b"), "b");
        }
        refusals.listen(&cgroups, Path::new("/gone"), "gone");
        let next = || async {
            let heard = tokio::time::timeout(Duration::from_secs(30), refusals.next());
            heard
                .await
                .unwrap()
                .unwrap()
                .into_iter()
                .collect::<Vec<_>>()
        };
        count("a/c", 1);
        assert_eq!(next().await, ["a"]);
        refusals.forget("a");
        count("a", 1);
        count("b", 1);
        assert_eq!(next().await, ["b"]);
    }

    #[test]
    fn the_first_generation_tells_nobody() {
        let v1 = Cgroups::V1([].into());
        assert!(Refusals::new(&v1).unwrap().is_none());
    }
}
