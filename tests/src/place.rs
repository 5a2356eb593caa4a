//! A machine that joins a cluster: a network namespace, as far as its network goes.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::{Cluster, Run, command, wait};

/// Where the server is, seen from the machine on its cable.
pub const SERVER: &str = "10.253.9.1";
/// The machine that a cable leads to.
pub const MACHINE: &str = "10.253.9.2";

/// A machine of its own, as far as its network goes, on a cable to the server.
pub struct Place {
    /// The name of its network namespace.
    pub name: String,
    /// Its data directory.
    pub data: tempfile::TempDir,
}

impl Place {
    /// One with a cable to the server.
    pub fn new() -> Result<Self> {
        let place = Self::unwired("")?;
        let (name, link) = (&place.name, format!("pj{}", std::process::id()));
        for line in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {SERVER}/24 dev {link}"),
            format!("link set {link} up"),
        ] {
            command::run("ip", line.split(' '))?.ok()?;
        }
        for line in [
            format!("addr add {MACHINE}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            "link set lo up".to_owned(),
            format!("route add default via {SERVER}"),
        ] {
            place.inside("ip", line.split(' '))?.ok()?;
        }
        Ok(place)
    }

    /// One without a cable.
    pub fn unwired(suffix: &str) -> Result<Self> {
        Ok(Self {
            name: format!("peapod-join-{}{suffix}", std::process::id()),
            data: tempfile::Builder::new().prefix("peapod-join-").tempdir()?,
        })
    }

    /// Runs a program there.
    pub fn inside<'a>(&self, program: &str, args: impl Iterator<Item = &'a str>) -> Result<Run> {
        let namespace = format!("--net=/run/netns/{}", self.name);
        let mut all = vec![namespace, program.to_owned()];
        all.extend(args.map(str::to_owned));
        command::run("nsenter", all)
    }

    /// Runs peapod there.
    pub fn peapod(&self, line: &str) -> Result<Run> {
        let data = format!("PEAPOD_DATA_DIR={}", self.data.path().display());
        let binary = command::peapod()?.to_string_lossy().into_owned();
        let mut line = format!("{data} {binary} {line}");
        if line.contains(" join ") {
            line += &format!(" --data-dir {}", self.data.path().display());
        }
        self.inside("env", line.split_whitespace())
    }

    /// Starts a role of peapod there.
    pub fn start(&self, line: &str) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("peapod.log"))?;
        let line = format!("{line} {}", self.data_dir());
        Ok(Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(command::peapod()?)
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?)
    }

    /// The process of the node that joined.
    pub fn pid(&self) -> Result<i32> {
        let text = std::fs::read_to_string(self.data.path().join("run/instance.json"))?;
        let state: serde_json::Value = serde_json::from_str(&text)?;
        Ok(state["pid"].as_i64().context("no pid")? as i32)
    }

    /// The flag that names its data directory.
    pub fn data_dir(&self) -> String {
        format!("--data-dir {}", self.data.path().display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data.path().join("peapod.log"));
            eprintln!("--- the node's log ---\n{}", log.unwrap_or_default());
        }
        let purged = self.peapod("down --purge").and_then(Run::ok);
        let gone = command::run("ip", ["netns", "del", &self.name]).and_then(Run::ok);
        for error in [purged.err(), gone.err()].into_iter().flatten() {
            eprintln!("the joined machine could not be removed: {error:#}");
        }
    }
}

/// `peapod server`, and the join command that it prints.
pub fn server(cluster: &Cluster, address: &str) -> Result<(Child, String)> {
    let out = cluster.data_dir().join("server.out");
    let port = cluster.listen().rsplit(':').next().context("no port")?;
    let child = Command::new(command::peapod()?)
        .args(["server", "--listen", &format!("{address}:{port}")])
        .arg("--data-dir")
        .arg(cluster.data_dir())
        .stdout(File::create(&out)?)
        .stderr(File::create(cluster.data_dir().join("peapod.log"))?)
        .stdin(Stdio::null())
        .spawn()?;
    let mut line: Option<String> = None;
    wait::until("the join command", || {
        let text = std::fs::read_to_string(&out)?;
        let printed = text.lines().map(str::trim);
        let printed = printed.filter_map(|line| line.strip_prefix("peapod join "));
        line = printed.map(|rest| format!("join {rest}")).next();
        Ok(line.is_some())
    })?;
    Ok((child, line.context("no join command")?))
}

/// An archive of `busybox:test`.
pub fn busybox(place: &Place) -> Result<String> {
    let archive = place
        .data
        .path()
        .join("busybox.tar")
        .to_string_lossy()
        .into_owned();
    let words = [
        "image",
        "assemble",
        "busybox:test",
        "/bin/busybox",
        "-o",
        &archive,
    ];
    command::run(command::peapod()?, words)?.ok()?;
    Ok(archive)
}
