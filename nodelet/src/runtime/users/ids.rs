//! Which IDs of the host a pod's user namespace has. Pure, but for reading what the host says.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// IDs that each pod has, upstream's `idsPerPod`.
pub const IDS_PER_POD: u32 = 65_536;
/// The user whose IDs pods get where the administrator says which.
const KUBELET: &str = "kubelet";
/// Largest file of subordinate IDs that is read.
const FILE_MAX: u64 = 1 << 20;

/// IDs of the host that are 0, 1, 2, ... in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// What 0 is on the host.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Where the pods of a node get their IDs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The first ID of the first pod.
    pub first: u32,
    /// Most pods.
    pub pods: u32,
}

// === impl HostIds ===

impl HostIds {
    /// As `/proc/PID/uid_map` wants it.
    pub fn map(&self) -> String {
        format!("0 {} {}\n", self.first, self.count)
    }

    /// What an ID inside is on the host.
    pub fn on_host(&self, inside: u32) -> Option<u32> {
        let known = inside < self.count;
        known.then(|| self.first.checked_add(inside)).flatten()
    }
}

// === impl Ranges ===

impl Ranges {
    /// Upstream's: as many as the node has room for pods, behind those of the host's own users.
    pub fn default_for(pods: u32) -> Self {
        Self {
            first: IDS_PER_POD,
            pods,
        }
    }

    /// Those of the `number`th node of one machine: no two nodes' pods share any.
    #[must_use]
    pub fn of_node(self, number: u32) -> Self {
        let room = self.pods.saturating_mul(IDS_PER_POD);
        let nodes = (u32::MAX - self.first) / room.max(1);
        Self {
            first: self.first + room.saturating_mul(number % nodes.max(1)),
            ..self
        }
    }

    /// Those of the user `kubelet` in `/etc/subuid` and `/etc/subgid`, or the default.
    pub fn of_host(pods: u32) -> Result<Self, String> {
        let users = read(Path::new("/etc/subuid"))?;
        let groups = read(Path::new("/etc/subgid"))?;
        Self::of_files(&users, &groups, pods)
    }

    fn of_files(users: &str, groups: &str, pods: u32) -> Result<Self, String> {
        let (users, groups) = (of_kubelet(users)?, of_kubelet(groups)?);
        if users != groups {
            return Err(format!(
                "/etc/subuid and /etc/subgid must give the user {KUBELET} the same IDs"
            ));
        }
        let Some((first, count)) = users else {
            return Ok(Self::default_for(pods));
        };
        let why = if first < IDS_PER_POD || first % IDS_PER_POD != 0 {
            format!("begin at a multiple of {IDS_PER_POD} that is not 0")
        } else if count / IDS_PER_POD < pods {
            format!("be {IDS_PER_POD} for each of {pods} pods at least")
        } else {
            return Ok(Self { first, pods });
        };
        Err(format!(
            "the IDs of the user {KUBELET} in /etc/subuid and /etc/subgid ({first}:{count}) must {why}"
        ))
    }

    /// IDs that nobody has. `used` are the first IDs of those that are taken.
    pub fn free(&self, used: &[u32]) -> Option<HostIds> {
        let firsts =
            (0..self.pods).filter_map(|pod| self.first.checked_add(pod.checked_mul(IDS_PER_POD)?));
        let mut fit = firsts.filter(|first| first.checked_add(IDS_PER_POD - 1).is_some());
        let first = fit.find(|first| !used.contains(first))?;
        Some(HostIds {
            first,
            count: IDS_PER_POD,
        })
    }
}

/// A file that is not there gives nobody anything.
fn read(path: &Path) -> Result<String, String> {
    let told = |reason: String| format!("cannot read {}: {reason}", path.display());
    match fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_MAX => Err(told(format!("larger than {FILE_MAX} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        _ => fs::read_to_string(path).map_err(|error| told(error.to_string())),
    }
}

/// The line of the user: `NAME:FIRST:COUNT`.
fn of_kubelet(text: &str) -> Result<Option<(u32, u32)>, String> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut own = lines.by_ref().filter_map(|mut parts| {
        (parts.next() == Some(KUBELET)).then(|| (parts.next(), parts.next()))
    });
    let Some(one) = own.next() else {
        return Ok(None);
    };
    if own.next().is_some() {
        return Err(format!(
            "the user {KUBELET} has several ranges in /etc/subuid or /etc/subgid; it must have one"
        ));
    }
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok());
    match (number(one.0), number(one.1)) {
        (Some(first), Some(count)) => Ok(Some((first, count))),
        _ => Err(format!(
            "the line of {KUBELET} in /etc/subuid or /etc/subgid is not NAME:FIRST:COUNT"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_which_ids() {
        let of = |users: &str, groups: &str| Ranges::of_files(users, groups, 110);
        let default = Ranges::default_for(110);
        assert_eq!(of("", ""), Ok(default));
        assert_eq!(of("alice:100000:65536\n", "alice:1:1\n"), Ok(default));
        let ours = "alice:1:2\nkubelet:131072:7208960\n";
        let given = Ranges {
            first: 131_072,
            pods: 110,
        };
        assert_eq!(of(ours, ours), Ok(given));
        for (users, groups, said) in [
            (ours, "", "the same"),
            ("kubelet:1:7208960", "kubelet:1:7208960", "multiple"),
            ("kubelet:65536:65536", "kubelet:65536:65536", "110 pods"),
            ("kubelet:0:7208960", "kubelet:0:7208960", "not 0"),
            ("kubelet:a:b", "", "NAME:FIRST:COUNT"),
            ("kubelet:1:2\nkubelet:3:4", "", "several"),
        ] {
            let error = of(users, groups).unwrap_err();
            assert!(error.contains(said), "{users}: {error}");
        }
    }

    #[test]
    fn pods_never_share_ids_and_have_an_end() {
        let ranges = Ranges::default_for(3);
        let mut used = Vec::new();
        while let Some(ids) = ranges.free(&used) {
            used.push(ids.first);
        }
        assert_eq!(used, [65_536, 131_072, 196_608]);
        assert_eq!(ranges.free(&[65_536, 196_608]).unwrap().first, 131_072);
        let last = Ranges {
            first: u32::MAX - 10,
            pods: 1,
        };
        assert_eq!(last.free(&[]), None, "the host has no such IDs");
        let (one, two) = (ranges.of_node(1), ranges.of_node(2));
        assert_eq!(one.first + 3 * IDS_PER_POD, two.first);
        assert!(ranges.of_node(u32::MAX).free(&[]).is_some());
    }

    #[test]
    fn ids_on_the_host() {
        let ids = HostIds {
            first: 65_536,
            count: 65_536,
        };
        assert_eq!(ids.on_host(1000), Some(66_536));
        assert_eq!(ids.on_host(65_536), None);
    }
}
