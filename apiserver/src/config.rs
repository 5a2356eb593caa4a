//! What the API server is told at its start.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
pub use peapod_store::{EtcdConfig, EtcdTls};

use crate::audit::AuditConfig;

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// In memory: they end with the process. For tests and simulation.
    Memory,
    /// In a sled database, in `store` under the data directory.
    Sled,
    /// In etcd, for several servers over one state.
    Etcd(EtcdConfig),
}

/// The configuration of an API server. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where state lives: keys and certificates in `pki`, objects in `store`.
    pub data_dir: PathBuf,
    /// Where objects are kept.
    pub engine: Engine,
    /// Where the CA and the key of service account tokens are, when several servers share them;
    /// otherwise in `pki` too.
    pub shared_pki: Option<PathBuf>,
    /// The ranges of service addresses, at most one of each family, the preferred one first.
    pub service_cidrs: Vec<IpNet>,
    /// The range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// The domain of the cluster's DNS names.
    pub cluster_domain: String,
    /// The address at which pods and nodes reach this server; the endpoint of the `kubernetes`
    /// service.
    pub advertise_address: IpAddr,
    /// The port there.
    pub secure_port: u16,
    /// The commit that the program is built from, as `/version` tells it.
    pub git_commit: String,
    /// Further names and addresses in the serving certificate.
    pub extra_sans: Vec<String>,
    /// The issuer of service account tokens; their default audience too.
    pub issuer: String,
    /// Whether who proves nothing is `system:anonymous`, who may do what roles grant to it: read
    /// health and version. Otherwise every request needs a proof.
    pub anonymous: bool,
    /// A file of static tokens, lines of `token,user,uid,"group1,group2"`.
    pub token_file: Option<PathBuf>,
    /// An `AuthenticationConfiguration`: issuers of OIDC tokens, and where nobody needs to be
    /// anybody.
    pub authentication_file: Option<PathBuf>,
    /// An `AdmissionConfiguration`: what `PodSecurity` demands where namespaces say nothing, and
    /// of whom it demands nothing.
    pub admission_file: Option<PathBuf>,
    /// What is recorded of requests, and where; nothing otherwise.
    pub audit: Option<AuditConfig>,
    /// Seats for requests in work at once, of which priority levels have their shares; watches
    /// and streams need none. More requests wait, or are answered with 429.
    pub max_requests: usize,
    /// How long a request may take, watches and streams aside.
    pub request_timeout: Duration,
    /// How long an event is kept after it was last written; zero: for ever.
    pub event_ttl: Duration,
    /// How long a stop waits for requests in work.
    pub drain: Duration,
}

// === impl Config ===

impl Config {
    /// The defaults: objects in sled under `data_dir`, dual-stack service ranges, everything on
    /// loopback.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let net = |text: &str| text.parse().expect("a constant network is well-formed");
        Self {
            data_dir: data_dir.into(),
            engine: Engine::Sled,
            shared_pki: None,
            service_cidrs: vec![net("10.96.0.0/16"), net("fd00:10:96::/112")],
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".to_owned(),
            advertise_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            secure_port: 6443,
            git_commit: String::new(),
            extra_sans: Vec::new(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            anonymous: true,
            token_file: None,
            authentication_file: None,
            admission_file: None,
            audit: None,
            max_requests: 1000,
            request_timeout: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
        }
    }

    /// The address of the `kubernetes` service: the first of the preferred range.
    pub fn api_service_address(&self) -> Option<IpAddr> {
        self.service_cidrs.first()?.hosts().next()
    }

    /// The directory of keys and certificates.
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_service_has_the_first_address() {
        let config = Config::new("/nowhere");
        assert_eq!(config.api_service_address(), "10.96.0.1".parse().ok());
    }
}
