//! The reference: containers of the same image through the same containerd, by `ctr`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command};

use crate::pods::IMAGE;

/// Where they are, in containerd.
const NAMESPACE: &str = "peapod-bench";

/// A containerd, with a namespace of our own that is removed at the end.
pub struct Ctr {
    socket: PathBuf,
}

impl Ctr {
    /// At a socket, with nothing.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// At the cluster's containerd, with the image.
    pub fn prepare(cluster: &Cluster) -> Result<Self> {
        let state = cluster.peapod(["status", "-o", "json"])?.ok()?;
        let state: serde_json::Value = serde_json::from_str(&state)?;
        let socket = state["containerd"]
            .as_str()
            .context("status names no containerd")?;
        let ctr = Self::at(socket.into());
        let archive = command::demo_archive("v1")?;
        ctr.ctr(&["images", "import", &archive.to_string_lossy()])?;
        Ok(ctr)
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let mut all = vec!["--address", &*socket, "--namespace", NAMESPACE];
        all.extend(args);
        command::run("ctr", all)?.ok()
    }

    /// Runs a container and removes it; how long running it took.
    pub fn run(&self, round: usize) -> Result<Duration> {
        let id = format!("bare-{round}");
        let started = Instant::now();
        self.start(&id)?;
        let took = started.elapsed();
        self.remove(&id)?;
        Ok(took)
    }

    /// Runs a container.
    pub fn start(&self, id: &str) -> Result<()> {
        self.ctr(&["run", "-d", IMAGE, id]).map(drop)
    }

    /// Pulls an image over plain HTTP.
    pub fn pull(&self, image: &str) -> Result<()> {
        self.ctr(&["images", "pull", "--plain-http", image])
            .map(drop)
    }

    /// Forgets an image and, at once, what it is made of.
    pub fn forget(&self, image: &str) -> Result<()> {
        self.ctr(&["images", "remove", "--sync", image]).map(drop)
    }

    /// Removes it.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "delete", "--force", id])?;
        self.ctr(&["container", "delete", id]).map(drop)
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        let removed = self
            .forget(IMAGE)
            .and_then(|()| self.ctr(&["namespaces", "remove", NAMESPACE]));
        if let Err(error) = removed {
            eprintln!("the reference could not be removed: {error:#}");
        }
    }
}
