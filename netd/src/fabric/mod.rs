//! BGP: the node speaks to the switches above it as the API says, and tells the API how that goes.
//!
//! ```text
//!   API watches                                       leaf switches
//!   bgppeers, bgpconfigs, own node,                        ▲ BGP, BFD
//!   secrets that peers name ────────┐                      │
//!                                   ▼                      │
//!   program ── Announced ───▶ [`plan`] ── config ──▶ peapod-router ──▶ routes in the kernel
//!                                                          │ sessions
//!                         BgpNode ◀── publish ◀── [`status`]
//! ```
//!
//! What decides is pure: [`plan`] says which router the node should be, [`status`] what the API is
//! told of it. A node that no `BgpPeer` selects runs no router and listens on no port. It must not
//! know how paths are chosen: the speaker does.

mod announced;
pub mod balancers;
mod drain;
mod links;
mod metrics;
pub mod plan;
mod policy;
mod publish;
mod secrets;
mod status;
mod watches;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use peapod_api::net::BgpNodeStatus;
use peapod_router::{RouterConfig, RouterView, Seat, run_seated};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::announced::Announced;
pub(crate) use self::metrics::BgpMetrics;

use self::links::{LinkKeeper, fabric_links};
use self::plan::{Drain, Facts, Plan};
use self::status::Drained;
use self::watches::{Known, Watches};
use crate::tasks::Shared;

/// Inputs that wait, at most; further watch events wait in their connections.
const INPUTS: usize = 256;
/// How long after a router ended in an error it is started again.
const AGAIN: Duration = Duration::from_secs(5);

/// A router at work.
struct Running {
    plan: Plan,
    config: watch::Sender<RouterConfig>,
    view: watch::Receiver<RouterView>,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), peapod_router::Error>>,
}

/// Follows the API until `shutdown`, then leaves as for a planned restart: routes stay.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut announced: watch::Receiver<Option<Announced>>,
    shutdown: CancellationToken,
) {
    let (sender, mut inputs) = mpsc::channel(INPUTS);
    let mut watches = Watches::start(&shared.client, &shared.config.node_name, &sender);
    let (tell, told) = watch::channel(BgpNodeStatus::default());
    let (owner, owned) = watch::channel(None);
    let name = shared.config.node_name.clone();
    let publishing = publish::run(shared.client.clone(), name, told, owned);
    let _publishing = AbortOnDropHandle::new(tokio::spawn(publishing));
    let metrics = &shared.metrics.bgp;
    let mut known = Known::default();
    let mut running: Option<Running> = None;
    let mut links = LinkKeeper::new(shared.clone());
    // As the router has shown them: until then those hold that an earlier run wrote.
    let mut neighbors: Option<BTreeSet<String>> = None;
    let mut drained = Drained::default();
    let mut handover = shared.handover.subscribe();
    let mut counting = tokio::time::interval(drain::EVERY);
    counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(neighbors) = &neighbors {
            let announced = running
                .as_ref()
                .is_some_and(|now| now.plan.announces_blocks);
            links.keep(fabric_links(neighbors, announced)).await;
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(input) = inputs.recv() => known.take(input),
            Ok(()) = announced.changed() => {}
            () = links.due() => continue,
            Ok(()) = handover.changed() => {
                drained.hands_over_to = handover.borrow_and_update().clone();
                tell_of(&tell, running.as_ref(), &drained, None);
                continue;
            }
            _ = counting.tick(), if leaves(running.as_ref()) => {
                drained.connections = count(&shared, &announced).await;
                tell_of(&tell, running.as_ref(), &drained, None);
                continue;
            }
            news = news(&mut running) => match news {
                News::Changed => {
                    let view = running.as_ref().map(|now| now.view.borrow().clone());
                    let view = view.unwrap_or_default();
                    neighbors = Some(view.links.clone());
                    metrics.show(view);
                    tell_of(&tell, running.as_ref(), &drained, None);
                    continue;
                }
                News::Ended(error) => {
                    tracing::error!(error, "the node's BGP speaker ended; starting it again");
                    running = None;
                    metrics.show(RouterView::default());
                    tell_of(&tell, None, &drained, error);
                    tokio::time::sleep(AGAIN).await;
                }
            },
        }
        // What waits is taken in at once.
        while let Ok(input) = inputs.try_recv() {
            known.take(input);
        }
        watches.follow_secrets(&known.follow_secrets());
        owner.send_if_modified(|now| {
            let differs = *now != known.uid();
            *now = known.uid();
            differs
        });
        let facts = announced.borrow_and_update().clone();
        let Some(facts) = facts.and_then(|announced| known.facts(&shared.config, announced)) else {
            continue;
        };
        if facts.drain > Drain::None && !leaves(running.as_ref()) {
            // The first number is a true one.
            drained.connections = count(&shared, &announced).await;
        }
        let error = follow(&facts, &mut running, metrics).await;
        tell_of(&tell, running.as_ref(), &drained, error);
        if running.is_none() {
            neighbors = Some(BTreeSet::new());
        }
    }
    if let Some(running) = running {
        leave(running).await;
    }
}

fn leaves(running: Option<&Running>) -> bool {
    running.is_some_and(|now| now.plan.drain > Drain::None)
}

/// Connections that still go through this node.
async fn count(shared: &Arc<Shared>, announced: &watch::Receiver<Option<Announced>>) -> u32 {
    let services = announced
        .borrow()
        .as_ref()
        .map(|all| all.services().collect());
    let inside = shared.config.pod_cidrs.clone();
    let work = move || drain::connections(&services.unwrap_or_default(), &inside);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(count)) => count,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot count connections; a drain will wait its time");
            u32::MAX
        }
        // The runtime ends, and this task with it.
        Err(_) => 0,
    }
}

/// Makes the router as the facts want it; what is wrong with them.
async fn follow(
    facts: &Facts,
    running: &mut Option<Running>,
    metrics: &BgpMetrics,
) -> Option<String> {
    let plan = match plan::plan(facts) {
        Ok(plan) => plan,
        // The router goes on as it was: a mistake in the API is no reason to go dark.
        Err(fault) => return Some(fault.to_string()),
    };
    let Some(plan) = plan else {
        // No peer: the router, if there is one, stays without, so that its routes go.
        if let Some(running) = running {
            running.config.send_modify(|config| {
                config.neighbors.clear();
                config.announce.clear();
            });
            running.plan.peers.clear();
            running.plan.faults.clear();
        }
        return None;
    };
    let identity = |config: &RouterConfig| (config.asn, config.router_id);
    let same = |now: &Running| identity(&now.plan.router) == identity(&plan.router);
    if let Some(other) = running.take_if(|now| !same(now)) {
        leave(other).await;
    }
    match running {
        Some(running) => {
            running.config.send_if_modified(|config| {
                let differs = *config != plan.router;
                config.clone_from(&plan.router);
                differs
            });
            running.plan = plan;
        }
        None => *running = Some(start(plan, metrics)),
    }
    None
}

fn start(plan: Plan, metrics: &BgpMetrics) -> Running {
    let (config, configured) = watch::channel(plan.router.clone());
    let (show, view) = watch::channel(RouterView::default());
    let stop = CancellationToken::new();
    let seat = Seat {
        config: configured,
        view: show,
        meter: Arc::new(metrics.clone()),
    };
    let task = tokio::spawn(run_seated(seat, stop.clone()));
    Running {
        plan,
        config,
        view,
        stop,
        task: AbortOnDropHandle::new(task),
    }
}

/// Ends a router so that its neighbours keep its routes for a while.
async fn leave(running: Running) {
    running.stop.cancel();
    let task: JoinHandle<_> = running.task.detach();
    if let Ok(Err(error)) = task.await {
        tracing::warn!(%error, "the BGP speaker did not end well");
    }
}

/// What a router at work has to tell.
enum News {
    /// Something of it has changed.
    Changed,
    /// It has ended, and why.
    Ended(Option<String>),
}

async fn news(running: &mut Option<Running>) -> News {
    let Some(running) = running else {
        return std::future::pending().await;
    };
    tokio::select! {
        ended = &mut running.task => News::Ended(match ended {
            Ok(ended) => ended.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }),
        Ok(()) = running.view.changed() => News::Changed,
    }
}

fn tell_of(
    tell: &watch::Sender<BgpNodeStatus>,
    running: Option<&Running>,
    drained: &Drained,
    error: Option<String>,
) {
    let plan = running.map(|now| &now.plan);
    let view = running.map(|now| now.view.borrow().clone());
    let view = view.unwrap_or_default();
    let now = jiff::Timestamp::now();
    tell.send_if_modified(|told| {
        let mut status = status::status(plan, &view, drained, told, now);
        status.last_error = error;
        let differs = *told != status;
        *told = status;
        differs
    });
}
