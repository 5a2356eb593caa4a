//! What must be there before an instance starts, each with its remedy.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};

/// Refuses to start where it cannot work.
pub fn check(listen: SocketAddr) -> Result<()> {
    root()?;
    kernel()?;
    port(listen)
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

fn port(listen: SocketAddr) -> Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{listen} is taken by another program (see `ss -ltnp 'sport = :{}'`); stop it, or pass --listen with another port",
            listen.port()
        ),
        Err(error) => bail!(
            "cannot listen on {listen}: {error}; pass --listen with an address of this machine"
        ),
    }
}
