//! `up --enable`: a systemd unit, so that the cluster is there after a reboot. Stopping the
//! unit leaves containers alone (`KillMode=process`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const UNIT: &str = "/etc/systemd/system/peapod.service";

/// Installs and enables the unit for a data directory.
pub fn enable(data_dir: &Path) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        bail!(
            "--enable needs systemd, which does not run this machine; start `peapod up` from your init instead"
        );
    }
    let binary = std::env::current_exe().context("cannot find the path of this binary")?;
    std::fs::write(UNIT, text(&binary, data_dir))
        .with_context(|| format!("cannot write {UNIT}"))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "peapod.service"])
}

/// Removes the unit if it is there.
pub fn disable() -> Result<()> {
    if !Path::new(UNIT).exists() {
        return Ok(());
    }
    systemctl(&["disable", "peapod.service"])?;
    std::fs::remove_file(UNIT).with_context(|| format!("cannot remove {UNIT}"))?;
    systemctl(&["daemon-reload"])
}

fn systemctl(args: &[&str]) -> Result<()> {
    let status = Command::new("systemctl")
        .args(args)
        .status()
        .context("cannot run systemctl")?;
    if !status.success() {
        bail!("`systemctl {}` failed with {status}", args.join(" "));
    }
    Ok(())
}

fn text(binary: &Path, data_dir: &Path) -> String {
    format!(
        "[Unit]\n\
         Description=Peapod, a small Kubernetes with the network built in\n\
         After=network-online.target containerd.service\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={} up --foreground --data-dir {}\n\
         KillMode=process\n\
         Restart=always\n\
         Delegate=yes\n\
         LimitNOFILE=1048576\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        binary.display(),
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_containers_alone() {
        let unit = text(Path::new("/usr/bin/peapod"), Path::new("/var/lib/peapod"));
        assert!(unit.contains("KillMode=process\n"));
        assert!(unit.contains("up --foreground --data-dir /var/lib/peapod\n"));
    }
}
