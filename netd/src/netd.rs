//! The agent as its callers see it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::Name;
use parking_lot::{Mutex, RwLock};
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::attacher::Attacher;
use crate::config::Config;
use crate::core::services::ServiceTable;
use crate::core::zone::Zone;
use crate::dns;
use crate::links::{self, node, sysctl};
use crate::metrics::Metrics;
use crate::nat::{Nat, NatConfig};
use crate::pods::{self, LinkSettings, Pods};
use crate::seam;
use crate::tasks::{self, Beginning, Shared};

/// How long the tasks have to end when they are told to.
const LEAVE: Duration = Duration::from_secs(3);
/// Links of detached pods that wait for their deletion, at most; further detachments wait.
const DELETION_QUEUE: usize = 1024;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Links, routes or kernel settings.
    #[error("cannot prepare this node's network: {0}")]
    Links(#[from] links::Error),
    /// nftables.
    #[error("cannot prepare the service maps: {0}")]
    Maps(#[from] peapod_nft::Error),
    /// What is attached already.
    #[error("cannot read which pods are attached: {0}")]
    Pods(#[from] pods::Error),
    /// DNS.
    #[error(transparent)]
    Dns(#[from] dns::Error),
    /// The socket for attachments.
    #[error(transparent)]
    Socket(#[from] seam::ServerError),
    /// A domain that is no name.
    #[error("the cluster domain {domain:?} is no DNS name: {detail}")]
    Domain {
        /// The domain.
        domain: String,
        /// Why not.
        detail: String,
    },
    /// A thread of ours died.
    #[error("preparing this node's network was cut short: {0}")]
    Thread(#[from] JoinError),
}

/// What `ready` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The node holds an address block.
    pub(crate) block: bool,
    /// The services of the API are in the maps.
    pub(crate) services: bool,
    /// The ways to other nodes have been seen to.
    pub(crate) ways: bool,
}

/// The network agent of one node. It works in the network namespace of the threads that start
/// it. Dropping it ends its tasks, and leaves the kernel as it is: pods keep their network.
pub struct Netd {
    attacher: Arc<Attacher>,
    metrics: Metrics,
    warnings: watch::Receiver<Vec<String>>,
    shutdown: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Netd {
    /// Prepares the node and starts the agent's tasks.
    ///
    /// # Errors
    /// When the kernel refuses what the node needs. The API need not answer yet: the tasks
    /// keep trying, and [`PodNetwork::ready`] waits for them.
    pub async fn start(
        client: kube::Client,
        config: Config,
        shutdown: CancellationToken,
    ) -> Result<Arc<Netd>, Error> {
        let shutdown = shutdown.child_token();
        let config = Arc::new(config);
        let for_thread = config.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare(&for_thread)).await??;
        let metrics = Metrics::default();
        let servers = bind_dns(&config).await?;
        let socket = config.attach_socket.as_deref();
        let socket = socket.map(seam::Server::bind).transpose()?;
        let (readiness, on_ready) = watch::channel(Readiness::default());
        let (warnings, on_warning) = watch::channel(Vec::new());
        let (deletions, to_delete) = mpsc::channel(DELETION_QUEUE);
        let shared = Arc::new(Shared {
            client,
            config,
            pods: Arc::new(prepared.pods),
            nat: prepared.nat,
            mtu: prepared.mtu,
            readiness,
            warnings,
            metrics: metrics.clone(),
            announced: watch::Sender::new(None),
            ways: watch::Sender::new(None),
            handover: watch::Sender::new(None),
            tunnelled: watch::Sender::new(false),
        });
        let attacher = Arc::new(Attacher {
            pods: shared.pods.clone(),
            metrics: metrics.clone(),
            deletions,
            readiness: on_ready,
        });
        let beginning = Beginning {
            services: prepared.services,
            zone: prepared.zone,
            dns: servers,
            to_delete,
            socket: socket.map(|socket| (socket, attacher.clone())),
        };
        let tasks = tasks::spawn(shared, beginning, &shutdown);
        metrics.attached(attacher.pods.attached().len());
        Ok(Arc::new(Netd {
            attacher,
            metrics,
            warnings: on_warning,
            shutdown,
            tasks: tokio::sync::Mutex::new(tasks),
        }))
    }

    /// Ends the agent's tasks and waits until they have let go of their sockets, so that
    /// another agent can start. The kernel stays as it is: pods keep their network.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        let mut tasks = self.tasks.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        // The fabric takes leave of its neighbours; a neighbour that does not listen is not
        // waited for.
        if tokio::time::timeout(LEAVE, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }

    /// What else on this machine meddles with the network, a sentence with the remedy each; kept
    /// current.
    pub fn warnings(&self) -> watch::Receiver<Vec<String>> {
        self.warnings.clone()
    }

    /// Adds the agent's metrics to what a `/metrics` endpoint serves.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

struct Prepared {
    pods: Pods,
    nat: Arc<Mutex<Nat>>,
    services: ServiceTable,
    zone: Arc<RwLock<Zone>>,
    mtu: u32,
}

/// Everything that needs no API: forwarding, the tables, and what is attached already.
fn prepare(config: &Config) -> Result<Prepared, Error> {
    node::enable_forwarding(&config.state_dir)?;
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => node::uplink_mtu()?,
    };
    let (nat, current) = Nat::open(&nat_config(config))?;
    let nat = Arc::new(Mutex::new(nat));
    let settings = LinkSettings {
        mtu,
        node_ips: config.node_ips.clone(),
    };
    let pods = Pods::open(settings, nat.clone())?;
    let dns = config.dns.as_ref().map_or(&[][..], |dns| &dns.addresses);
    for &address in dns {
        node::add_local_address(address)?;
    }
    let services = ServiceTable::new(&config.node_name, dns, current);
    let zone = Arc::new(RwLock::new(zone(config)?));
    tracing::info!(
        mtu,
        pods = pods.attached().len(),
        frontends = services.current().len(),
        "network prepared"
    );
    Ok(Prepared {
        pods,
        nat,
        services,
        zone,
        mtu,
    })
}

/// The cluster's zone; without DNS of our own it is never asked.
fn zone(config: &Config) -> Result<Zone, Error> {
    let cidrs = [&config.service_cidrs[..], &config.pod_cidrs].concat();
    let Some(dns) = &config.dns else {
        return Ok(Zone::new(Name::root(), 0, Vec::new(), cidrs));
    };
    let origin = Name::from_ascii(&dns.domain).map_err(|error| Error::Domain {
        domain: dns.domain.clone(),
        detail: error.to_string(),
    })?;
    Ok(Zone::new(origin, dns.ttl_s, dns.addresses.clone(), cidrs))
}

async fn bind_dns(config: &Config) -> Result<Vec<dns::Server>, Error> {
    let mut servers = Vec::new();
    for address in config.dns.iter().flat_map(|dns| &dns.addresses) {
        servers.push(dns::bind((*address, dns::PORT).into()).await?);
    }
    Ok(servers)
}

pub(crate) fn nat_config(config: &Config) -> NatConfig {
    NatConfig {
        service_cidrs: config.service_cidrs.clone(),
        private_ips: config.private_ips.clone(),
        source_ips: {
            let known = config.node_ips.iter().copied();
            known
                .filter(|ip| !config.private_ips.contains(ip))
                .collect()
        },
        foreign_links: config.foreign_links,
        ipv6: sysctl::has_ipv6(),
    }
}

// === impl PodNetwork ===

#[async_trait]
impl PodNetwork for Netd {
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError> {
        self.attacher.attach(request).await
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError> {
        self.attacher.detach(request).await
    }

    async fn attached(&self) -> Result<Vec<PodRef>, AttachError> {
        self.attacher.attached().await
    }

    async fn ready(&self) -> Result<(), AttachError> {
        self.attacher.ready().await
    }

    async fn metrics(&self) -> Result<String, AttachError> {
        self.attacher.metrics().await
    }
}
