//! Has the kernel ready to move processes between groups.
//!
//! The first move after a while waits for a grace period of RCU, 8 to 16 ms; one that comes within 10 ms
//! of another does not wait. To start a container is to move its process. So with each step
//! of a start this process is moved to where it is, beside the work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Cgroups;

/// Moves that change nothing.
#[derive(Debug)]
pub struct Moves {
    /// The list of processes of our own group.
    own: Option<PathBuf>,
    underway: AtomicBool,
}

// === impl Moves ===

impl Moves {
    /// Where our own group can be seen; elsewhere each start waits.
    pub fn new(cgroups: &Cgroups) -> Arc<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Arc::new(Self {
            own: own_group(cgroups, &groups).map(|dir| dir.join("cgroup.procs")),
            underway: AtomicBool::new(false),
        })
    }

    /// Begins one, unless one is underway.
    pub fn begin(self: &Arc<Self>) {
        if self.own.is_none() || self.underway.swap(true, Ordering::AcqRel) {
            return;
        }
        let moves = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Some(own) = &moves.own
                && let Err(error) = fs::write(own, "0")
            {
                tracing::debug!(file = %own.display(), %error, "starts wait for the kernel");
            }
            moves.underway.store(false, Ordering::Release);
        });
    }
}

/// The directory of our group, by the lines `ID:CONTROLLERS:PATH` of `/proc/self/cgroup`.
fn own_group(cgroups: &Cgroups, lines: &str) -> Option<PathBuf> {
    let (root, controller) = match cgroups {
        Cgroups::V1(controllers) => (controllers.get("pids")?, "pids"),
        Cgroups::V2(root) => (root, ""),
    };
    let path = lines.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let ours = controllers.split(',').any(|name| name == controller);
        ours.then_some(path)
    })?;
    // Outside of what a namespace shows.
    let path = Path::new(path).strip_prefix("/").ok()?;
    (!path.starts_with("..")).then(|| root.join(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn our_group_in_both_generations() {
        let v2 = Cgroups::V2("/sys/fs/cgroup".into());
        let found = own_group(&v2, "0::/system.slice/peapod.service\n");
        let expected = PathBuf::from("/sys/fs/cgroup/system.slice/peapod.service");
        assert_eq!(found, Some(expected));
        assert_eq!(own_group(&v2, "0::/../other\n"), None);
        let pids = BTreeMap::from([("pids".to_owned(), "/sys/fs/cgroup/pids".into())]);
        let lines = "3:cpu,cpuacct:/a\n2:pids:/b:c\n0::/\n";
        let found = own_group(&Cgroups::V1(pids), lines);
        assert_eq!(found, Some("/sys/fs/cgroup/pids/b:c".into()));
        assert_eq!(own_group(&Cgroups::V1(BTreeMap::new()), lines), None);
    }

    #[tokio::test]
    async fn the_processes_stay_where_they_are() {
        let Ok(cgroups) = Cgroups::detect() else {
            return;
        };
        let before = fs::read_to_string("/proc/self/cgroup").unwrap();
        let moves = Moves::new(&cgroups);
        moves.begin();
        let done = async {
            while moves.underway.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), done)
            .await
            .unwrap();
        assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    }
}
