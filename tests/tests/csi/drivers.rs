//! The driver's processes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use peapod_csi::tunnel;
use peapod_csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, VolumeCapability,
};
use peapod_tests::{Cluster, command};

/// Its name.
pub const DRIVER: &str = "disk.csi.example.com";

/// The driver's processes, one for each node; dropping them ends them and lets go of what they hold.
pub struct Drivers {
    pool: PathBuf,
    running: Vec<(String, PathBuf, Child)>,
}

// === impl Drivers ===

impl Drivers {
    /// Cleans up after a driver that something else runs.
    pub fn of_others(pool: PathBuf) -> Self {
        Self {
            pool,
            running: Vec::new(),
        }
    }

    /// Starts the driver for nodes, each with its folder.
    pub fn start(cluster: &Cluster, nodes: &[&str]) -> Result<Self> {
        let pool = cluster.data_dir().join("csi-pool");
        let mut drivers = Self::of_others(pool);
        for node in nodes {
            let folder = cluster.data_dir().join("nodes").join(node).join("node");
            drivers.begin(node, folder)?;
        }
        Ok(drivers)
    }

    fn begin(&mut self, node: &str, folder: PathBuf) -> Result<()> {
        let child = Command::new(env!("CARGO_BIN_EXE_peapod-test-csi"))
            .args([DRIVER, node])
            .args([&self.pool, &folder])
            .stdout(Stdio::null())
            .spawn()?;
        self.running.push((node.to_owned(), folder, child));
        Ok(())
    }

    /// Ends the driver of a node as a crash would, and starts it again.
    pub fn crash(&mut self, node: &str) -> Result<()> {
        let at = self.running.iter().position(|(name, ..)| name == node);
        let (node, folder, mut child) = self.running.remove(at.context("no such driver")?);
        child.kill()?;
        child.wait()?;
        self.begin(&node, folder)
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let list = command::run("losetup", ["--noheadings", "-O", "NAME,BACK-FILE"]);
        let list = list.map(|run| run.stdout).unwrap_or_default();
        let own = list
            .lines()
            .filter(|line| line.contains(&*self.pool.to_string_lossy()));
        for device in own.filter_map(|line| line.split_whitespace().next()) {
            let _ = command::run("losetup", ["--detach", device]);
        }
    }
}

/// Whether a node has it.
pub fn registered(cluster: &Cluster, node: &str) -> Result<bool> {
    let path =
        "{.spec.drivers[*].name}/{.spec.drivers[*].nodeID}/{.spec.drivers[*].allocatable.count}";
    let said = cluster.field(&format!("csinode/{node}"), path)?;
    Ok(said == format!("{DRIVER}/id-of-{node}/7"))
}

/// Volumes made through the tunnel, as the controllers do it.
pub async fn make_volumes(cluster: &Cluster, node: &str, names: &[&str]) -> Result<()> {
    let client = cluster.client().await?;
    let driver = tunnel::connect(&client, node, DRIVER)
        .await
        .map_err(anyhow::Error::msg)?;
    for name in names {
        let request = CreateVolumeRequest {
            name: (*name).to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: 32 << 20,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![VolumeCapability::default()],
            ..CreateVolumeRequest::default()
        };
        let made = driver.call(request).await?.volume.context("no volume")?;
        assert_eq!(made.volume_id, format!("vol-{name}"));
    }
    Ok(())
}

/// Lets a volume grow, as the controllers do it.
pub async fn grow(cluster: &Cluster, node: &str, id: &str, bytes: i64) -> Result<()> {
    let client = cluster.client().await?;
    let driver = tunnel::connect(&client, node, DRIVER)
        .await
        .map_err(anyhow::Error::msg)?;
    let request = ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        ..ControllerExpandVolumeRequest::default()
    };
    assert!(driver.call(request).await?.node_expansion_required);
    Ok(())
}
