//! The agent's tasks and what flows between them.
//!
//! ```text
//!   API watches                              kernel
//!   services ───────┐
//!   endpointslices ─┤  Input   ┌─────────┐  maps, addresses, routes
//!   nodes ──────────┼─────────▶│ program │──────────────────────────▶ nftables, rtnetlink
//!   ipblocks, pools ┤          └────┬────┘
//!   bgppeers ───────┤               │
//!   ruleset (guard)─┘               │
//!                                   │ Zone ──▶ DNS server ◀── requests of pods and the node
//!                                   │ Readiness
//!                                   │ Announced ──▶ [`crate::fabric`]
//!                                   │ Facts ──▶ ways ──▶ rtnetlink: routes to other nodes
//!   nodelet ── attach, detach ──▶ Attacher ── Connected ──▶ delete links ──▶ rtnetlink
//!   other processes ── socket ────────▲
//! ```
//!
//! `program` is the only one that decides, in the pure [`crate::core`]; it takes all inputs
//! that wait, then makes the kernel so. A watch that breaks begins again with a list, and what
//! the list lacks is gone.

mod give_back;
mod guard;
mod inputs;
mod program;
mod publish;
mod ways;
mod world;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attacher::Attacher;
use crate::config::Config;
use crate::core::services::ServiceTable;
use crate::core::ways::Facts;
use crate::core::zone::Zone;
use crate::dns::upstreams::Upstreams;
use crate::dns::{self, Forwarder, Handler};
use crate::fabric::{self, Announced};
use crate::links::pod::Connected;
use crate::metrics::Metrics;
use crate::nat::Nat;
use crate::netd::Readiness;
use crate::pods::Pods;
use crate::seam;
use world::World;

/// Inputs that wait for `program`, at most; further watch events wait in their connections.
const INPUT_QUEUE: usize = 4096;

/// What the tasks share.
pub(crate) struct Shared {
    pub(crate) client: kube::Client,
    pub(crate) config: Arc<Config>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) nat: Arc<Mutex<Nat>>,
    pub(crate) mtu: u32,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) warnings: watch::Sender<Vec<String>>,
    pub(crate) metrics: Metrics,
    /// What the node could announce, once that is known.
    pub(crate) announced: watch::Sender<Option<Announced>>,
    /// What the ways to other nodes follow from, once that is known.
    pub(crate) ways: watch::Sender<Option<Arc<Facts>>>,
    /// The node that leaves and gets the connections that it began, once it does.
    pub(crate) handover: watch::Sender<Option<String>>,
    /// Whether there are tunnels to other nodes.
    pub(crate) tunnelled: watch::Sender<bool>,
}

/// What the tasks begin with.
pub(crate) struct Beginning {
    /// The service map as the kernel has it.
    pub(crate) services: ServiceTable,
    pub(crate) zone: Arc<RwLock<Zone>>,
    /// Bound, and not yet answering.
    pub(crate) dns: Vec<dns::Server>,
    pub(crate) to_delete: mpsc::Receiver<Connected>,
    /// Where other processes ask for attachments, and who does them.
    pub(crate) socket: Option<(seam::Server, Arc<Attacher>)>,
}

/// Starts all tasks; they end with the set, or when `shutdown` says so.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    beginning: Beginning,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    inputs::spawn(&mut tasks, &shared.client, &sender, shutdown);
    if let Some(config) = &shared.config.dns {
        let upstreams = Upstreams::new(&config.resolv_conf, &config.addresses);
        let forwarder = Arc::new(Forwarder::new(upstreams));
        let metrics = shared.metrics.clone();
        let handler = Handler::new(beginning.zone.clone(), forwarder, metrics);
        for server in beginning.dns {
            until(&mut tasks, shutdown, server.run(handler.clone()));
        }
        let service = publish::run(shared.client.clone(), config.addresses.clone());
        until(&mut tasks, shutdown, service);
    }
    until(&mut tasks, shutdown, give_back::run(shared.clone()));
    let guard = guard::run(shared.clone(), sender);
    until(&mut tasks, shutdown, guard);
    let announced = shared.announced.subscribe();
    // It ends by itself, since it has to leave its neighbours in order.
    tasks.spawn(fabric::run(shared.clone(), announced, shutdown.clone()));
    let ways = ways::run(shared.clone(), shared.ways.subscribe());
    until(&mut tasks, shutdown, ways);
    if let Some((server, attacher)) = beginning.socket {
        until(&mut tasks, shutdown, server.run(attacher));
    }
    let world = World::new(&shared.config, beginning.services, beginning.zone);
    let deletions = delete_links(shared.pods.clone(), beginning.to_delete);
    let program = program::run(shared, world, receiver);
    until(&mut tasks, shutdown, program);
    until(&mut tasks, shutdown, deletions);
    tasks
}

fn until(
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        shutdown.run_until_cancelled(work).await;
    });
}

/// Deletes the links of detached pods, one after the other.
async fn delete_links(pods: Arc<Pods>, mut to_delete: mpsc::Receiver<Connected>) {
    while let Some(gone) = to_delete.recv().await {
        let pods = pods.clone();
        let deleted = tokio::task::spawn_blocking(move || pods.finish_detach(&gone)).await;
        if let Err(error) = deleted {
            tracing::error!(%error, "the deletion of a pod's link was cut short");
        }
    }
}
