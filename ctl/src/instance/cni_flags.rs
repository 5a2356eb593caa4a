//! The flags of a node whose pods are linked by somebody else's CNI plugins.

use std::path::PathBuf;

use crate::roles::node::CniSettings;

/// Where configurations and plugins are.
#[derive(Clone, Debug, clap::Args)]
pub struct CniFlags {
    /// Link pods by the CNI configuration in this directory, not by the network agent; kept
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Where the CNI plugins are
    #[arg(
        long,
        value_name = "DIR,...",
        value_delimiter = ',',
        requires = "cni_conf_dir",
        default_value = "/opt/cni/bin,/usr/lib/cni"
    )]
    cni_bin_dir: Vec<PathBuf>,
}

impl CniFlags {
    /// What they say.
    pub fn settings(&self) -> Option<CniSettings> {
        Some(CniSettings {
            conf_dir: self.cni_conf_dir.clone()?,
            bin_dirs: self.cni_bin_dir.clone(),
        })
    }
}
