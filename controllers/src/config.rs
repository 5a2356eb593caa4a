//! The configuration of the controllers.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::csi::Dialer;
use crate::shell::metrics::Metrics;

/// The configuration of the controllers. [`Config::default`] is that of one machine, and enough
/// for tests.
#[derive(Clone, Debug)]
pub struct Config {
    /// The certificate authority of the API server, PEM; published to every namespace as the
    /// ConfigMap `kube-root-ca.crt`. Empty: not published.
    pub root_ca_pem: String,
    /// The private key of that authority, PEM: with it approved certificate requests are signed.
    /// Empty: somebody else signs them.
    pub signing_key_pem: String,
    /// What node's pod addresses are cut from, one range per address family: made into `IpPool`s
    /// when there are none yet.
    pub cluster_cidrs: Vec<BlockRange>,
    /// How long a node keeps a further block of addresses that it does not need.
    pub block_idle: Duration,
    /// Directory on the nodes under which the volumes of the class `local` are made.
    pub local_volumes_dir: PathBuf,
    /// How old a node's Lease may be before the node counts as unreachable.
    pub node_grace: Duration,
    /// Finished pods beyond this number are deleted, oldest first. 0: never.
    pub finished_pods_kept: usize,
    /// How the drivers of volumes (CSI) are reached.
    pub csi: Dialer,
    /// Metrics; register them to serve them.
    pub metrics: Metrics,
}

/// A range of pod addresses, and how large a block of it a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The range, as `10.244.0.0/16`.
    pub cidr: IpNet,
    /// Prefix length of one node's block, as 24.
    pub block_prefix: u8,
}

impl Default for Config {
    fn default() -> Self {
        let range = |cidr: &str, block_prefix| BlockRange {
            cidr: cidr.parse().expect("a constant CIDR that parses"),
            block_prefix,
        };
        Self {
            root_ca_pem: String::new(),
            signing_key_pem: String::new(),
            cluster_cidrs: vec![range("10.244.0.0/16", 24), range("fd00:10:244::/56", 64)],
            block_idle: Duration::from_secs(300),
            local_volumes_dir: "/var/lib/peapod/volumes".into(),
            node_grace: Duration::from_secs(40),
            finished_pods_kept: 12_500,
            csi: Dialer::default(),
            metrics: Metrics::default(),
        }
    }
}
