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

    /// The node agent's settings, when the node has any: a `KubeletConfiguration`.
    pub fn kubelet_config(&self) -> PathBuf {
        self.root.join("kubelet.yaml")
    }

    /// The node agent's pods and their volumes.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// What pods are attached by, where CNI plugins link them.
    pub fn cni(&self) -> PathBuf {
        self.node().join("cni")
    }

    /// Logs of containers.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the network agent changed and must restore.
    pub fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    /// Where the node is asked to look at the ways of packets.
    pub fn trace_socket(&self) -> PathBuf {
        self.run().join("trace.sock")
    }

    /// Where the node's BGP speaker is looked at, while it has one.
    pub fn bgp_socket(&self) -> PathBuf {
        self.run().join("bgp.sock")
    }

    /// Where other processes of the node ask its network agent for attachments.
    pub fn netd_socket(&self) -> PathBuf {
        self.run().join("netd.sock")
    }

    /// Held locked by a network agent that runs apart; names its process.
    pub fn netd_lock(&self) -> PathBuf {
        self.run().join("netd.lock")
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

    /// What the node of this directory is.
    pub fn node_settings(&self) -> PathBuf {
        self.root.join("node.json")
    }

    /// The cluster's keys, where they lie nowhere else.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// What proves who is who between a server that joined others and their etcd.
    pub fn etcd(&self) -> PathBuf {
        self.root.join("etcd")
    }

    /// What a server that joined others is part of.
    pub fn joined(&self) -> PathBuf {
        self.root.join("joined.json")
    }

    /// Where a server over etcd has its keys and objects.
    pub fn reach(&self) -> PathBuf {
        self.root.join("reach.json")
    }

    /// The API servers that the node knows beside the one it joined by.
    pub fn servers(&self) -> PathBuf {
        self.root.join("servers.json")
    }

    /// The nodes in namespaces, a data directory each below it.
    pub fn nodes_dir(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The data directory of a node in a namespace.
    pub fn of_node(&self, name: &str) -> Self {
        Self {
            root: self.nodes_dir().join(name),
        }
    }

    /// The data directories that have containers: those of nodes in namespaces, or this one.
    pub fn of_nodes(&self) -> Vec<Self> {
        let entries = std::fs::read_dir(self.nodes_dir()).into_iter().flatten();
        let mut roots: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        roots.sort();
        match roots.is_empty() {
            true => vec![self.clone()],
            false => roots.into_iter().map(|root| Self { root }).collect(),
        }
    }

    /// Leaves and spines, a directory each below it.
    pub fn fabric(&self) -> PathBuf {
        self.root.join("fabric")
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
