//! Keeps the ways to other nodes in the kernel: after every change of what they follow from, of
//! this node's links, and of what somebody else did to them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Shared;
use crate::core::ways::Facts;
use crate::fabric::Announced;
use crate::links::Error;
use crate::links::watch::WayWatch;
use crate::links::ways::{Kept, WayKeeper};
use crate::nat::handover;

/// First and longest pause before what failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Ways(#[from] Error),
    #[error("cannot hand connections over to a node that leaves: {0}")]
    Handover(#[from] peapod_nft::Error),
}

/// Follows the facts for ever.
pub(super) async fn run(shared: Arc<Shared>, mut facts: watch::Receiver<Option<Arc<Facts>>>) {
    let node = shared.config.node_name.clone();
    let mut pause = PAUSES.0;
    loop {
        match follow(&shared, &node, &mut facts).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "ways to other nodes are not looked after; trying again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Follows until nobody tells facts any more.
async fn follow(
    shared: &Arc<Shared>,
    node: &str,
    facts: &mut watch::Receiver<Option<Arc<Facts>>>,
) -> Result<(), Error> {
    let keeper = WayKeeper::open(node, shared.mtu, shared.config.vxlan_port)?;
    let mut news = WayWatch::open(keeper.port()).map_err(Error::Open)?;
    let keeper = Arc::new(Mutex::new(keeper));
    let mut announced = shared.announced.subscribe();
    // An agent before may have handed over what nobody wants any more.
    let mut cleared = false;
    let mut pause = PAUSES.0;
    loop {
        let known = facts.borrow_and_update().clone();
        let mut again = None;
        if let Some(known) = known {
            let kept = keep(shared, &keeper, known).await;
            let told = announced.borrow_and_update().clone();
            match hand_over(shared, kept, told, &mut cleared).await {
                Ok(kept) => {
                    let some = !kept.ways.blocks.is_empty() || !kept.links.is_empty();
                    let tunnels = kept.links.into_values().collect();
                    if news.guard(some, tunnels).map_err(Error::Open)? {
                        again = Some(Duration::ZERO);
                    }
                    pause = PAUSES.0;
                }
                Err(error) => {
                    tracing::warn!(%error, "some ways to other nodes are not in place; trying again");
                    again = Some(pause);
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            // Said after a failure too: pods of this node need no other.
            shared
                .readiness
                .send_if_modified(|now| !std::mem::replace(&mut now.ways, true));
        }
        let retry = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = facts.changed() => if changed.is_err() { return Ok(()) },
            heard = news.changed() => heard.map_err(Error::Open)?,
            Ok(()) = announced.changed(), if shared.handover.borrow().is_some() => {}
            () = retry => {}
        }
    }
}

/// Has the kernel send connections of a node that leaves to it, as soon as there is a way, or no
/// longer; tells of it.
async fn hand_over(
    shared: &Arc<Shared>,
    kept: Result<Kept, Error>,
    announced: Option<Announced>,
    cleared: &mut bool,
) -> Result<Kept, Fault> {
    let kept = kept?;
    let to = kept
        .ways
        .handover
        .as_ref()
        .map(|handover| handover.node.clone());
    let before = shared.handover.borrow().clone();
    if to.is_some() || before.is_some() || !std::mem::replace(cleared, true) {
        let addresses = announced
            .map(|all| all.services().collect())
            .unwrap_or_default();
        let wanted = to.is_some();
        let work = move || match wanted {
            true => handover::begin(&addresses),
            false => handover::end(),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
    shared.handover.send_if_modified(|now| {
        let differs = *now != to;
        if differs {
            tracing::info!(node = ?to, "connections are handed over to a node that leaves");
        }
        *now = to;
        differs
    });
    Ok(kept)
}

/// Makes the kernel so.
async fn keep(
    shared: &Arc<Shared>,
    keeper: &Arc<Mutex<WayKeeper>>,
    facts: Arc<Facts>,
) -> Result<Kept, Error> {
    let (shared, keeper) = (shared.clone(), keeper.clone());
    let work = move || {
        let kept = keeper.lock().keep(&facts)?;
        shared.pods.set_mtu(kept.pod_mtu);
        shared.tunnelled.send_if_modified(|now| {
            let some = !kept.links.is_empty();
            std::mem::replace(now, some) != some
        });
        if kept.added + kept.removed > 0 {
            let (blocks, tunnels) = (kept.ways.blocks.len(), kept.links.len());
            let (added, removed) = (kept.added, kept.removed);
            tracing::info!(blocks, tunnels, added, removed, "ways to other nodes' pods");
        }
        Ok(kept)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(kept) => kept,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
