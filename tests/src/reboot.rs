//! What a reboot takes from a cluster: every process, mount, link, route, table and cgroup, and
//! what lies in `/run`. What is on disk stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::command::{Run, run};
use crate::{Cluster, process};

/// The routing protocol number of Peapod's routes.
const ROUTE_PROTOCOL: &str = "96";
/// How the links of pods are named on the node.
const LINKS: &str = "pea";
/// Where shims and runc keep what does not survive a reboot.
const RUN: &str = "/run/containerd";

/// Takes all that at once from a cluster with a containerd of its own.
pub fn reboot(cluster: &Cluster) -> Result<()> {
    let data = cluster.data_dir();
    let tasks = data.join("containerd/state/io.containerd.runtime.v2.task");
    let sockets = shim_sockets(&tasks)?;
    let node_ip = cluster.node_ip()?;
    let dns = cluster.field("service/kube-dns -n kube-system", "{.spec.clusterIP}")?;

    let roots = process::with_argument(&data.to_string_lossy())?;
    let everything = process::with_descendants(&roots)?;
    let groups = pods_cgroups(&everything);
    for &pid in &everything {
        // Nobody may see the others go. One that has just ended is gone already.
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGSTOP);
    }
    process::kill(&everything)?;

    unmount_below(data)?;
    for namespace in &groups {
        remove_cgroups(namespace);
        remove_dir(&Path::new(RUN).join("runc").join(namespace))?;
    }
    for socket in sockets {
        std::fs::remove_file(&socket).with_context(|| socket.display().to_string())?;
    }
    forget_network(&[node_ip, dns])
}

/// The cgroups below which the pods of these processes are; named like the containerd namespaces.
fn pods_cgroups(pids: &[i32]) -> BTreeSet<String> {
    let mut groups = BTreeSet::new();
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let tops = paths.filter_map(|path| path.trim_start_matches('/').split('/').next());
        groups.extend(
            tops.filter(|top| top.starts_with("peapod"))
                .map(str::to_owned),
        );
    }
    groups
}

/// Names of what a folder holds.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

/// Each bundle names the socket of its shim.
fn shim_sockets(tasks: &Path) -> Result<Vec<PathBuf>> {
    let mut sockets = Vec::new();
    for namespace in names(tasks)? {
        for bundle in names(&tasks.join(&namespace))? {
            let path = tasks.join(&namespace).join(bundle).join("address");
            let address = std::fs::read_to_string(path)?;
            sockets.push(address.trim_start_matches("unix://").into());
        }
    }
    // Containers of one pod may share a shim.
    sockets.sort();
    sockets.dedup();
    Ok(sockets)
}

fn unmount_below(data: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    let mut below: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(data) && Path::new(point) != data)
        .collect();
    below.reverse();
    for point in below {
        run("umount", ["-l", point]).and_then(Run::ok)?;
    }
    Ok(())
}

/// In every hierarchy, from the leaves up.
fn remove_cgroups(name: &str) {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    let mut places: Vec<PathBuf> = hierarchies.flatten().map(|entry| entry.path()).collect();
    places.push("/sys/fs/cgroup".into());
    for place in places {
        remove_cgroup(&place.join(name));
    }
}

fn remove_cgroup(group: &Path) {
    for child in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if child.path().is_dir() {
            remove_cgroup(&child.path());
        }
    }
    // A hierarchy that has no such group has nothing to lose.
    let _ = std::fs::remove_dir(group);
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

fn forget_network(local_addresses: &[String]) -> Result<()> {
    let links = run("ip", ["-o", "link"])?.ok()?;
    let named = links.lines().filter_map(|line| line.split(": ").nth(1));
    for link in named.filter_map(|name| name.split('@').next()) {
        if link.starts_with(LINKS) {
            let deleted = run("ip", ["link", "delete", link])?.ok();
            // With the last mount of its namespace the kernel deletes it too, and may be first.
            if Path::new("/sys/class/net").join(link).exists() {
                deleted?;
            }
        }
    }
    for family in ["ip", "ip6"] {
        run("nft", ["delete", "table", family, "peapod"])?.ok()?;
    }
    for family in ["-4", "-6"] {
        run("ip", [family, "route", "flush", "proto", ROUTE_PROTOCOL])?.ok()?;
    }
    for address in local_addresses {
        let address = format!("{address}/32");
        run("ip", ["address", "delete", &address, "dev", "lo"])?.ok()?;
    }
    Ok(())
}
