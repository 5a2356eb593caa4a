//! Where and how a node runs containers.

use std::ffi::OsString;
use std::path::PathBuf;

use peapod_shim::client::Shim;

use super::host;
use super::sandbox::Sandboxes;
use crate::images::registry::RegistryConfig;
use crate::logs::client::Config as LogConfig;
use crate::logs::file::Limits;
use crate::logs::writer::Args as LogArgs;
use crate::runtime::users::Ranges;

/// Pods with user namespaces, unless told otherwise.
const PODS_MAX: u32 = 110;

/// Where and how to run containers.
#[derive(Clone, Debug)]
pub struct Config {
    /// containerd's socket, from [`find_or_start`](super::launch::find_or_start).
    pub address: PathBuf,
    /// Our containerd namespace; several nodes on one machine have one each.
    pub namespace: String,
    /// Where the node keeps its sandboxes and the states of its containers; survives reboots.
    pub state_dir: PathBuf,
    /// Name of the cgroup below which all pods of this node are.
    pub cgroup_parent: String,
    /// OCI runtime, by name or path: `runc`, `crun`.
    pub oci_runtime: String,
    /// Program and first arguments of the log writer ([`crate::logs::writer_main`]).
    pub log_writer: Vec<OsString>,
    /// Program and first arguments of the shim ([`peapod_shim::shim_main`]) for new containers; without
    /// it they get containerd's runc shim. Those that run keep what they have.
    pub shim: Option<Vec<OsString>>,
    /// How much of each container's log is kept.
    pub log_limits: Limits,
    /// How registries are spoken to.
    pub registries: RegistryConfig,
    /// IDs of the host for pods with user namespaces.
    pub user_ids: Ranges,
    /// Where the node's network namespace is pinned, when it is not the one of containerd: what
    /// shares the host's network is put there.
    pub host_netns: Option<PathBuf>,
}

// === impl Config ===

impl Config {
    /// A node's configuration with the usual values; `log_writer` is this program with
    /// `log-writer`.
    pub fn new(address: PathBuf, namespace: &str, state_dir: PathBuf) -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("peapod"));
        Self {
            address,
            namespace: namespace.to_owned(),
            state_dir,
            cgroup_parent: namespace.to_owned(),
            oci_runtime: host::default_oci_runtime().to_owned(),
            log_writer: vec![program.clone().into(), "log-writer".into()],
            shim: Some(vec![program.into(), "shim".into()]),
            log_limits: Limits::default(),
            registries: RegistryConfig::default(),
            user_ids: Ranges::default_for(PODS_MAX),
            host_netns: None,
        }
    }

    pub(super) fn sandboxes(&self) -> Sandboxes {
        Sandboxes::new(self.state_dir.join("sandboxes"), self.user_ids)
    }

    pub(super) fn containers_dir(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    /// The node's shim; also when new containers get none, for those that have one.
    pub(super) fn shim(&self) -> Shim {
        let command = self.shim.clone().unwrap_or_else(|| {
            let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("peapod"));
            vec![program.into(), "shim".into()]
        });
        Shim::new(command, &self.containers_dir(), self.state_dir.join("shim"))
    }

    pub(super) fn log_config(&self) -> LogConfig {
        LogConfig {
            command: self.log_writer.clone(),
            socket: self.state_dir.join("log-writer.sock"),
            args: LogArgs {
                containers: self.containers_dir(),
                limits: self.log_limits,
            },
        }
    }
}
