//! What a cluster must leave as it was: links, addresses, routes, rules, tables, mounts, cgroups,
//! namespaces, sysctls, processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::run;

/// The state of this machine that a cluster could change, as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// Looks at the machine.
    pub fn now() -> Result<Self> {
        let mut lines = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            lines.extend(
                text.lines()
                    .map(|line| format!("{kind}: {}", line.trim_end())),
            );
        };
        add("link", &run("ip", ["-o", "-br", "link"])?.ok()?);
        add("address", &run("ip", ["-o", "-br", "address"])?.ok()?);
        for family in ["-4", "-6"] {
            add(
                "route",
                &run("ip", [family, "route", "show", "table", "all"])?.ok()?,
            );
            add("rule", &run("ip", [family, "rule"])?.ok()?);
        }
        add("nftables", &run("nft", ["list", "ruleset"])?.ok()?);
        add("mount", &mounts()?);
        add("sysctl", &sysctls()?);
        for folder in cgroup_folders() {
            add("cgroup", &folder);
        }
        add("process", &processes()?);
        Ok(Self(lines))
    }

    /// Fails with what differs from `before`.
    pub fn must_equal(&self, before: &Machine) -> Result<()> {
        let added: Vec<_> = self
            .0
            .difference(&before.0)
            .map(|l| format!("+ {l}"))
            .collect();
        let removed: Vec<_> = before
            .0
            .difference(&self.0)
            .map(|l| format!("- {l}"))
            .collect();
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        bail!(
            "the machine is not as it was:\n{}",
            [removed, added].concat().join("\n")
        )
    }
}

fn mounts() -> Result<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    Ok(points.map(|point| format!("{point}\n")).collect())
}

/// The switches of the network that a node needs to set.
fn sysctls() -> Result<String> {
    let mut text = String::new();
    for name in [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/default/rp_filter",
        "net/ipv4/conf/all/route_localnet",
        "net/ipv4/conf/lo/route_localnet",
        "net/netfilter/nf_conntrack_max",
    ] {
        let path = Path::new("/proc/sys").join(name);
        let value = std::fs::read_to_string(&path).unwrap_or_else(|_| "absent".to_owned());
        text.push_str(&format!("{name} = {}\n", value.trim()));
    }
    Ok(text)
}

/// Folders two deep in every hierarchy.
fn cgroup_folders() -> Vec<String> {
    let mut found = Vec::new();
    let children = |path: &Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|e| e.path())
            .filter(|p| p.is_dir() && !p.is_symlink())
            .collect()
    };
    for hierarchy in children(Path::new("/sys/fs/cgroup")) {
        for group in children(&hierarchy) {
            found.push(group.display().to_string());
            found.extend(children(&group).iter().map(|p| p.display().to_string()));
        }
    }
    found
}

/// Command lines of Peapod's processes and of what it starts. A cluster in a PID namespace of its own
/// (`tests/conformance/upstream/run`) may be there at the same time, and is not looked at.
fn processes() -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        let program = line
            .split_whitespace()
            .next()
            .and_then(|p| p.rsplit('/').next());
        if matches!(
            program,
            Some(
                "peapod"
                    | "containerd"
                    | "containerd-shim-runc-v2"
                    | "runc"
                    | "crun"
                    | "peapod-demo"
            )
        ) && !is_of_others(&entry.path())
        {
            text.push_str(&format!("{line}\n"));
        }
    }
    Ok(text)
}

/// Whether a process was started from another PID namespace than ours. The first process of one that we
/// started was not, whichever namespace it is in.
fn is_of_others(process: &Path) -> bool {
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/pid")).ok();
    let own = namespace(Path::new("/proc/self"));
    let above = std::iter::successors(parent(process), |process| parent(process));
    above
        .filter_map(|process| namespace(&process))
        .any(|namespace| Some(namespace) != own)
}

fn parent(process: &Path) -> Option<PathBuf> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let pid = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim();
    (pid != "0").then(|| Path::new("/proc").join(pid))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_others_started_in_a_namespace_of_theirs_is_theirs() {
        let mut shell = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                "sleep 60 & echo; wait",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        shell.stdout.take().unwrap().read_exact(&mut line).unwrap();
        let child = |pid: &str| {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let text = std::fs::read_to_string(path).unwrap();
            text.split_whitespace().next().unwrap().to_owned()
        };
        let first = child(&shell.id().to_string());
        let sleep = child(&first);
        let judged = [first, sleep].map(|pid| is_of_others(&Path::new("/proc").join(pid)));
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(judged, [false, true]);
    }

    #[test]
    fn sees_a_difference() {
        let before = Machine(BTreeSet::from(["link: lo".to_owned()]));
        let after = Machine(BTreeSet::from([
            "link: lo".to_owned(),
            "link: veth0".to_owned(),
        ]));
        assert!(before.must_equal(&before.clone()).is_ok());
        let error = after.must_equal(&before).unwrap_err().to_string();
        assert!(error.contains("+ link: veth0"), "{error}");
    }
}
