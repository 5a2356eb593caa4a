//! The agent's tasks and what flows between them.
//!
//! ```text
//!   API watches                              kernel
//!   services ───────┐
//!   endpointslices ─┤  Input   ┌─────────┐  maps, addresses, routes
//!   nodes ──────────┼─────────▶│ program │──────────────────────────▶ nftables, rtnetlink
//!   ipblocks ───────┘          └────┬────┘
//!                                   │ Readiness
//!   nodelet ── attach, detach ──▶ Netd ── Connected ──▶ delete links ──▶ rtnetlink
//! ```
//!
//! `program` is the only one that decides, in the pure [`crate::core`]; it takes all inputs
//! that wait, then makes the kernel so. A watch that breaks begins again with a list, and what
//! the list lacks is gone.

mod inputs;
mod program;
mod world;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::core::services::ServiceTable;
use crate::links::pod::Connected;
use crate::nat::Nat;
use crate::netd::Readiness;
use crate::pods::Pods;
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
}

/// Starts all tasks; they end with the set, or when `shutdown` says so.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    services: ServiceTable,
    to_delete: mpsc::Receiver<Connected>,
    shutdown: CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    inputs::spawn(&mut tasks, &shared.client, &sender, &shutdown);
    let deletions = delete_links(shared.pods.clone(), to_delete);
    let world = World::new(&shared.config, services);
    let program = program::run(shared, world, receiver);
    until(&mut tasks, &shutdown, program);
    until(&mut tasks, &shutdown, deletions);
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
