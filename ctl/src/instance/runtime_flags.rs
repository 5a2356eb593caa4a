//! The flags that say what runs a node's containers.

use serde::{Deserialize, Serialize};

/// What stands between the node agent and the OCI runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeShim {
    /// Peapod's own: one process for the node
    #[default]
    Peapod,
    /// containerd's (io.containerd.runc.v2): one process for a pod
    Runc,
}

/// What runs containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeFlags {
    /// What runs new containers: Peapod's own shim (default) or containerd's; those that run keep
    /// theirs; kept
    #[arg(long, value_name = "SHIM")]
    #[serde(default)]
    pub runtime_shim: Option<RuntimeShim>,
    /// OCI runtime of pods without a RuntimeClass, by name or path (default: crun, if it is
    /// installed and Peapod's shim runs it, else runc); kept
    #[arg(long, value_name = "PROGRAM")]
    #[serde(default)]
    pub oci_runtime: Option<String>,
}

impl RuntimeFlags {
    /// What they say, and of what they do not say what was said before.
    pub fn or(self, kept: Self) -> Self {
        Self {
            runtime_shim: self.runtime_shim.or(kept.runtime_shim),
            oci_runtime: self.oci_runtime.or(kept.oci_runtime),
        }
    }
}
