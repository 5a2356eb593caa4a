//! The configuration file of `peapod router`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use peapod_bgp::Config;
use peapod_bgp::config::{GracefulRestart, Neighbor, Range, Selection};
use peapod_bgp::policy::Policy;
use serde::Deserialize;

use crate::Error;

/// A router, as its file describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouterConfig {
    /// Our AS number.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Where to listen for neighbours.
    #[serde(default = "RouterConfig::default_listen")]
    pub listen: Vec<SocketAddr>,
    /// The neighbours.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// Ranges from which neighbours may come that are not listed.
    #[serde(default)]
    pub ranges: Vec<Range>,
    /// Prefixes to announce.
    #[serde(default)]
    pub announce: Vec<IpNet>,
    /// Put routes into the kernel's main table.
    #[serde(default)]
    pub install: bool,
    /// Where this machine's own packets over these routes come from, where they do not say: one
    /// address of each family at most, which the machine must have. The kernel chooses without.
    #[serde(default)]
    pub sources: Vec<IpAddr>,
    /// Most next hops of a route, 1 to 64. Paths through different ASes may share the load.
    #[serde(default = "RouterConfig::default_multipath")]
    pub multipath: u8,
    /// How paths are chosen; in place of `multipath`.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// Graceful restart.
    #[serde(default)]
    pub graceful_restart: GracefulRestart,
    /// Policies by name.
    #[serde(default)]
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// An eBGP neighbour without policy sends and gets nothing (RFC 8212).
    #[serde(default)]
    pub require_policy: bool,
    /// All routes are announced with GRACEFUL_SHUTDOWN (RFC 8326), to leave without loss.
    #[serde(default)]
    pub graceful_shutdown: bool,
    /// The route reflection cluster.
    #[serde(default)]
    pub cluster_id: Option<Ipv4Addr>,
    /// The name to give to neighbours.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Where to be looked at.
    #[serde(default)]
    pub control_socket: Option<PathBuf>,
}

impl RouterConfig {
    fn default_listen() -> Vec<SocketAddr> {
        let any: std::net::IpAddr = std::net::Ipv6Addr::UNSPECIFIED.into();
        vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 179)),
            SocketAddr::from((any, 179)),
        ]
    }

    fn default_multipath() -> u8 {
        8
    }

    /// A router with neither neighbours nor anything to announce, listening on port 179.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            listen: Self::default_listen(),
            neighbors: Vec::new(),
            ranges: Vec::new(),
            announce: Vec::new(),
            install: false,
            sources: Vec::new(),
            multipath: Self::default_multipath(),
            selection: None,
            graceful_restart: GracefulRestart::default(),
            policies: BTreeMap::new(),
            require_policy: false,
            graceful_shutdown: false,
            cluster_id: None,
            hostname: None,
            control_socket: None,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let of = |source| Error::ReadConfig {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(of)?;
        let config: RouterConfig =
            serde_saphyr::from_str(&text).map_err(|error| Error::ParseConfig {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let checked = config.speaker().check();
        checked.map_err(|fault| Error::Config {
            path: path.to_owned(),
            fault,
        })?;
        Ok(config)
    }

    /// What of it is the speaker's.
    pub fn speaker(&self) -> Config {
        let relaxed = Selection {
            multipath: self.multipath,
            multipath_relax: true,
            ..Selection::default()
        };
        Config {
            cluster_id: self.cluster_id,
            hostname: self.hostname.clone(),
            selection: self.selection.unwrap_or(relaxed),
            graceful_restart: self.graceful_restart,
            require_policy: self.require_policy,
            graceful_shutdown: self.graceful_shutdown,
            policies: self.policies.clone(),
            neighbors: self.neighbors.clone(),
            ranges: self.ranges.clone(),
            announce: self.announce.clone(),
            ..Config::new(self.asn, self.router_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RouterConfig, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = format!("{}: ", file.path().display());
        RouterConfig::read(file.path()).map_err(|error| error.to_string().replace(&name, ""))
    }

    #[test]
    fn a_lab_router_is_a_few_lines() {
        let config = read(
            "asn: 65101\nrouterId: 10.0.0.1\nlisten: [\"0.0.0.0:179\"]\nneighbors:\n\
             - {address: 10.0.0.2, remoteAs: 65000, bfd: true, password: secret}\n\
             - {interface: eth1, remoteAs: external}\nannounce: [10.244.1.0/24]\n\
             install: true\nmultipath: 8\ncontrolSocket: /run/r1.sock\n",
        );
        let config = config.unwrap();
        assert_eq!(config.neighbors.len(), 2);
        assert!(config.install && config.neighbors[1].unnumbered());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let start = "asn: 65101\nrouterId: 10.0.0.1\n";
        let cases = [
            ("neigbors: []\n", "neigbors"),
            (
                "neighbors: [{address: 10.0.0.2, remoteAs: 1, pasive: true}]\n",
                "neighbors[0].pasive",
            ),
            ("neighbors: [{remoteAs: 1}]\n", "neighbors[0]"),
            (
                "neighbors: [{address: 10.0.0.2, remoteAs: x}]\n",
                "`x` is no AS",
            ),
            (
                "neighbors: [{address: 10.0.0.2, remoteAs: 1, import: p}]\n",
                "neighbors[0].import",
            ),
            ("multipath: 65\n", "selection.multipath"),
            ("announce: [10.0.0.1/24]\n", "announce"),
        ];
        for (line, expected) in cases {
            let error = read(&format!("{start}{line}")).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
