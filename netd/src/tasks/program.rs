//! Makes the kernel as the API says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::Shared;
use super::inputs::Input;
use super::world::{Addresses, World};
use crate::core::services::Change;
use crate::fabric::Announced;
use crate::links::{self, node};
use crate::netd::nat_config;

/// Inputs taken at once, at most.
const BATCH: usize = 4096;
/// How long to wait before trying again what the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Links(#[from] links::Error),
    #[error(transparent)]
    Maps(#[from] peapod_nft::Error),
    #[error("programming was cut short: {0}")]
    Thread(#[from] JoinError),
}

/// What the kernel was last told.
#[derive(Default)]
struct Told {
    addresses: Addresses,
    services: bool,
    /// Something failed: read the kernel back before telling it more.
    failed: bool,
}

impl Told {
    /// Whether pods can have addresses; they need none of ours where somebody else gives them.
    fn can_attach(&self, foreign: bool) -> bool {
        match foreign {
            true => !self.addresses.cluster.is_empty(),
            false => !self.addresses.blocks.is_empty(),
        }
    }
}

/// Takes inputs until there are no more.
pub(crate) async fn run(shared: Arc<Shared>, mut world: World, mut inputs: mpsc::Receiver<Input>) {
    let mut told = Told::default();
    let mut batch = Vec::new();
    loop {
        let taken = if told.failed {
            let more = inputs.recv_many(&mut batch, BATCH);
            tokio::time::timeout(RETRY, more).await.ok()
        } else {
            Some(inputs.recv_many(&mut batch, BATCH).await)
        };
        if taken == Some(0) {
            return;
        }
        for input in batch.drain(..) {
            told.failed |= matches!(input, Input::TablesLost);
            world.take(input);
        }
        match tell(&shared, &mut world, &mut told).await {
            Ok(()) => told.failed = false,
            Err(error) => {
                tracing::error!(%error, "cannot program the network; trying again");
                shared.metrics.sync_failed();
                told.failed = true;
            }
        }
    }
}

async fn tell(shared: &Arc<Shared>, world: &mut World, told: &mut Told) -> Result<(), Error> {
    if told.failed {
        reread(shared, world).await?;
        *told = Told::default();
    }
    let foreign = shared.config.foreign_links;
    let known = world.addresses().cloned();
    // Addresses that somebody else gives to pods are not looked for in our blocks.
    let wanted = known.map(|known| match foreign {
        true => known.without_blocks(),
        false => known,
    });
    if let Some(addresses) = wanted.filter(|new| *new != told.addresses) {
        tell_addresses(shared, addresses.clone()).await?;
        told.addresses = addresses;
    }
    if world.knows_services() {
        let changes = if told.services {
            world.services.plan()
        } else {
            world.services.plan_all()
        };
        tell_services(shared, changes, world.services.current().len()).await?;
        told.services = true;
        let now = jiff::Timestamp::now();
        for happened in world.take_triggers() {
            shared.metrics.programmed(now.duration_since(happened));
        }
    }
    announce(shared, world, told);
    if let Some(facts) = world.changed_ways().filter(|_| !foreign) {
        let facts = Some(Arc::new(facts));
        shared.ways.send_if_modified(|now| {
            let differs = *now != facts;
            *now = facts;
            differs
        });
    }
    shared.readiness.send_if_modified(|now| {
        let before = *now;
        now.block = told.can_attach(foreign);
        now.ways |= foreign;
        now.services |= told.services;
        *now != before
    });
    Ok(())
}

/// What the kernel answers may be announced: never before it does.
fn announce(shared: &Shared, world: &World, told: &Told) {
    if !told.services || !told.can_attach(shared.config.foreign_links) {
        return;
    }
    let (blocks, ranges) = (&told.addresses.blocks, &told.addresses.services);
    let announced = Announced::of(blocks, ranges, &world.services);
    shared.announced.send_if_modified(|now| {
        let differs = now.as_ref() != Some(&announced);
        *now = Some(announced);
        differs
    });
}

/// The kernel may be anywhere between before and after: finds out.
async fn reread(shared: &Arc<Shared>, world: &mut World) -> Result<(), Error> {
    let shared = shared.clone();
    let read = move || {
        let current = shared.nat.lock().reopen(&nat_config(&shared.config))?;
        Ok::<_, Error>(current)
    };
    let current = tokio::task::spawn_blocking(read).await??;
    world.services.resync(current);
    Ok(())
}

async fn tell_addresses(shared: &Arc<Shared>, addresses: Addresses) -> Result<(), Error> {
    let shared = shared.clone();
    let write = move || {
        let routes = node::NodeRoutes {
            blocks: addresses.blocks.clone(),
            services: addresses.services.clone(),
            node_ips: shared.config.node_ips.clone(),
            mtu: shared.mtu,
        };
        node::ensure_routes(&routes)?;
        let mut nat = shared.nat.lock();
        nat.set_ranges(addresses.ranges())?;
        drop(nat);
        tracing::info!(blocks = ?addresses.blocks, "address blocks of this node");
        shared.pods.set_blocks(addresses.blocks);
        Ok(())
    };
    tokio::task::spawn_blocking(write).await?
}

async fn tell_services(
    shared: &Arc<Shared>,
    changes: Vec<Change>,
    frontends: usize,
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    let count = changes.len();
    let nat = shared.nat.clone();
    let apply = move || nat.lock().apply(&changes);
    tokio::task::spawn_blocking(apply).await??;
    let now_s = jiff::Timestamp::now().as_second();
    let took = start.elapsed();
    shared.metrics.synced(count, frontends, took, now_s);
    tracing::debug!(changes = count, ?took, "services programmed");
    Ok(())
}
