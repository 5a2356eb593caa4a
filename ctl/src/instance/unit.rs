//! `up --enable`: a systemd unit, so that the cluster is there after a reboot. Stopping the
//! unit leaves containers alone (`KillMode=process`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const UNIT: &str = "/etc/systemd/system/peapod.service";

/// Installs and enables the unit for a data directory, with the flags that this `up` was given.
pub fn enable(data_dir: &Path) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        bail!(
            "--enable needs systemd, which does not run this machine; start `peapod up` from your init instead"
        );
    }
    let binary = std::env::current_exe().context("cannot find the path of this binary")?;
    let flags = flags(std::env::args().skip(1));
    std::fs::write(UNIT, text(&binary, data_dir, &flags))
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

/// What follows `up`, without what the unit says itself.
fn flags(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args = args.skip_while(|arg| arg != "up").skip(1);
    let mut kept = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--enable" | "--foreground" => {}
            "--data-dir" => drop(args.next()),
            other if other.starts_with("--data-dir=") => {}
            _ => kept.push(arg),
        }
    }
    kept
}

/// A word of a command line, as systemd reads it.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('%', "%%").replace('$', "$$"))
}

fn text(binary: &Path, data_dir: &Path, flags: &[String]) -> String {
    let flags: String = flags
        .iter()
        .map(|flag| format!(" {}", quoted(flag)))
        .collect();
    format!(
        "[Unit]\n\
         Description=Peapod, a small Kubernetes with the network built in\n\
         After=network-online.target containerd.service\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={} up --foreground --data-dir {}{flags}\n\
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
        let unit = text(
            Path::new("/usr/bin/peapod"),
            Path::new("/var/lib/peapod"),
            &[],
        );
        assert!(unit.contains("KillMode=process\n"));
        assert!(unit.contains("up --foreground --data-dir /var/lib/peapod\n"));
    }

    #[test]
    fn keeps_the_flags_that_up_was_given() {
        let line =
            "up --enable --store etcd=http://a:1 --data-dir /d --node-name n%1 --data-dir=/e";
        let kept = flags(line.split(' ').map(str::to_owned));
        assert_eq!(kept, ["--store", "etcd=http://a:1", "--node-name", "n%1"]);
        let unit = text(Path::new("/p"), Path::new("/d"), &kept);
        let flags = "\"--store\" \"etcd=http://a:1\" \"--node-name\" \"n%%1\"";
        let line = format!("ExecStart=/p up --foreground --data-dir /d {flags}\n");
        assert!(unit.contains(&line), "{unit}");
    }
}
