//! Where an instance keeps what: every path below the data directory, in one place.

use std::path::{Path, PathBuf};

use peapod_nodelet::runtime::containerd;
use sha2::{Digest, Sha256};

/// The default of `--data-dir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/peapod";

/// The files of one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a data directory; relative paths are made absolute, since the instance
    /// outlives the shell that started it.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            root: std::path::absolute(root)?,
        })
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// A containerd of our own, where the machine has none.
    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    /// The node agent's pods and their volumes.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Logs of containers.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the network agent changed and must restore.
    pub fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    /// How the node's containers are kept in a containerd.
    pub fn runtime(&self, socket: PathBuf) -> containerd::Config {
        containerd::Config::new(
            socket,
            &self.containerd_namespace(),
            self.root.join("runtime"),
        )
    }

    /// The containerd namespace: `peapod`, and with a data directory of one's own a name of its
    /// own too, so that no cluster touches the containers and images of another.
    pub fn containerd_namespace(&self) -> String {
        if self.root == Path::new(DEFAULT_DATA_DIR) {
            return "peapod".to_owned();
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        let short: String = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("peapod-{short}")
    }

    /// Volumes of the node-local storage class.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The settings chosen at the first start, kept for the next.
    pub fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// What a running instance leaves for other commands; does not outlive it.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Held locked by the running instance.
    pub fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// The running instance's description.
    pub fn state(&self) -> PathBuf {
        self.run().join("instance.json")
    }

    /// The instance's log when it is detached.
    pub fn log(&self) -> PathBuf {
        self.root.join("peapod.log")
    }
}
