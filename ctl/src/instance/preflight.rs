//! What must be there before an instance starts, each with its remedy.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};

/// Refuses to start where it cannot work.
pub fn check(listen: SocketAddr) -> Result<()> {
    root()?;
    kernel()?;
    let remedy = "pass --listen with another address or port";
    port(listen, remedy)
}

/// Running containers and programming the network take root.
pub fn root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this takes root: it runs containers and programs the network; run it with sudo");
    }
    Ok(())
}

fn kernel() -> Result<()> {
    let needed = [
        ("/proc/self/ns/net", "network namespaces (CONFIG_NET_NS)"),
        ("/proc/self/ns/mnt", "mount namespaces (CONFIG_NAMESPACES)"),
        ("/sys/fs/cgroup", "control groups (CONFIG_CGROUPS)"),
    ];
    for (path, feature) in needed {
        if !Path::new(path).exists() {
            bail!("the kernel lacks {feature}: {path} is missing; use a kernel that has it");
        }
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"))
    {
        bail!("the kernel lacks overlayfs; try `modprobe overlay`, or use a kernel that has it");
    }
    Ok(())
}

/// Refuses a port that another program has, and says which program.
pub fn port(address: SocketAddr, remedy: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} is taken by {}; stop it, or {remedy}",
            holder(address.port()).unwrap_or_else(|| "another program".to_owned())
        ),
        Err(error) => bail!("cannot listen on {address}: {error}; {remedy}"),
    }
}

/// The program that listens on a TCP port, if it can be told.
fn holder(port: u16) -> Option<String> {
    let sockets = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let inodes: Vec<String> = sockets
        .iter()
        .flatten()
        .flat_map(|table| listeners(table, port))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    // `self` and `thread-self` stand beside the numbers.
    let processes =
        processes.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    for process in processes.map(|entry| entry.path()) {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten();
        let held = files.flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| *inode == target.to_string_lossy())
            })
        });
        if held {
            let name = std::fs::read_to_string(process.join("comm")).ok()?;
            let pid = process.file_name()?.to_string_lossy().into_owned();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The sockets of a table of `/proc/net` that listen on a port, as `/proc/PID/fd` names them.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&wanted) && *state == LISTEN).then(|| format!("socket:[{inode}]"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_holder() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refusal = port(address, "choose another").unwrap_err().to_string();
        let holder = format!("(pid {}); stop it, or choose another", std::process::id());
        assert!(
            refusal.starts_with(&format!("{address} is taken by ")) && refusal.ends_with(&holder),
            "{refusal}"
        );
        drop(taken);
        port(address, "choose another").unwrap();
    }
}
