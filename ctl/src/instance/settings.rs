//! What the first `up` of a data directory decides and every later one keeps: names, addresses,
//! ranges. Changing them under a cluster that holds objects would break it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::runtime_flags::RuntimeFlags;
use crate::fabric::plan::Fabric;
use crate::roles::node::{ClusterSettings, CniSettings};

/// The settings of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The node's InternalIP, once chosen.
    pub node_ip: Option<IpAddr>,
    /// Where the API server listens for the user.
    pub listen: SocketAddr,
    /// Ranges of pod addresses, the preferred family first.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of service addresses, the preferred family first.
    pub service_cidrs: Vec<IpNet>,
    /// The range the node's InternalIP is chosen from.
    pub node_cidr: IpNet,
    /// UDP port of VXLAN between nodes.
    #[serde(default = "vxlan_port")]
    pub vxlan_port: u16,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// How many nodes there are, where it was said.
    #[serde(default)]
    pub nodes: Option<u32>,
    /// Somebody else's CNI plugins that link the pods, if that was chosen.
    #[serde(default)]
    pub cni: Option<CniSettings>,
    /// What runs containers.
    #[serde(default)]
    pub runtime: RuntimeFlags,
    /// The fabric between them, if there is one.
    #[serde(default)]
    pub fabric: Option<Fabric>,
    /// The network between nodes in namespaces and the machine, once chosen.
    #[serde(default)]
    pub network: Option<Ipv4Net>,
    /// Where the objects are, in words; in sled where it was not said.
    #[serde(default)]
    pub store: Option<String>,
}

/// UDP port of VXLAN where none is chosen (IANA's).
pub fn vxlan_port() -> u16 {
    4789
}

impl Settings {
    /// The cluster's DNS: the tenth address of the first service range, where upstream's tools
    /// put it too.
    pub fn dns_address(&self) -> Result<IpAddr> {
        let Some(range) = self.service_cidrs.first() else {
            bail!("no service range is set; pass --service-cidr");
        };
        let address = range.hosts().nth(9);
        address
            .with_context(|| format!("the service range {range} is too small; pass --service-cidr"))
    }

    /// What every node must know.
    pub fn of_cluster(&self, layout: &Layout) -> Result<ClusterSettings> {
        Ok(ClusterSettings {
            pod_cidrs: self.pod_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            cluster_domain: self.cluster_domain.clone(),
            vxlan_port: self.vxlan_port,
            dns: self.dns_address()?,
            local_volumes_dir: layout.volumes(),
        })
    }

    /// Refuses another port of VXLAN than the cluster's nodes use.
    pub fn check_vxlan_port(&self, wanted: Option<u16>) -> Result<()> {
        let Some(port) = wanted.filter(|port| *port != self.vxlan_port) else {
            return Ok(());
        };
        bail!(
            "--vxlan-port {port} differs from what this cluster's nodes use ({}); keep it, or begin anew \
             after `peapod down --purge`",
            self.vxlan_port
        )
    }
}

/// This machine's name as a node name: lower case, only what a node name may hold.
pub fn node_name() -> Result<String> {
    let host = nix::unistd::gethostname().context("cannot read the host name")?;
    let host = host.to_string_lossy().to_lowercase();
    let cleaned: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = cleaned.trim_matches(['-', '.']).to_owned();
    peapod_api::names::dns_subdomain(&name).map_err(|fault| {
        anyhow::anyhow!("the host name {host:?} cannot name a node: {fault}; pass --node-name")
    })?;
    Ok(name)
}

/// Writes a value as JSON, whole or not at all, readable by its owner only.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_private(path, &serde_json::to_vec_pretty(value)?)
}

/// Writes a file, whole or not at all, readable by its owner only.
pub fn write_private(path: &Path, text: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> Result<()> {
        let mut file = std::fs::File::create(&partial)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a JSON file; `None` when there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let value = serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is damaged; restore it or remove it to start anew",
            path.display()
        )
    })?;
    Ok(Some(value))
}
