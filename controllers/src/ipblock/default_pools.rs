//! The configured ranges, made into pools where there are none: from then on pools say what
//! addresses pods have, and the configuration does not.

use std::sync::{Arc, OnceLock};

use kube::api::ObjectMeta;
use peapod_api::net::{IpPool, IpPoolSpec, block_name};

use crate::common::Key;
use crate::config::BlockRange;
use crate::shell::informer::revision;
use crate::shell::{Context, Controller, Informer, Loop, Outcome, Queue, Result, Tasks, write};

/// Whether the pools are made. Before that no node gets a block: one that is given its pod CIDRs
/// while there is a pool of one family only would stay without the other.
#[derive(Clone)]
pub struct Made {
    pools: Arc<Informer<IpPool>>,
    /// The newest one's revision, once they are; 0 when there were pools before.
    revision: Arc<OnceLock<u64>>,
}

struct DefaultPools {
    ctx: Context,
    /// Whether there was no pool when this process began.
    wanted: OnceLock<bool>,
    made: Made,
    /// Of the loop that waits for them.
    nodes: Queue,
}

/// Wires the loop, which has one key and is woken once; it wakes all nodes in `nodes` when it is
/// done.
pub fn start(ctx: &Context, tasks: &mut Tasks, nodes: Queue) -> Made {
    let made = Made {
        pools: ctx.informers.ip_pools.clone(),
        revision: Arc::default(),
    };
    let wired = Loop::new(ctx, "default-ip-pools")
        .reads(&ctx.informers.ip_pools)
        .reads(&ctx.informers.nodes);
    wired.queue().add(Key::cluster("default"));
    let controller = DefaultPools {
        ctx: ctx.clone(),
        wanted: OnceLock::new(),
        made: made.clone(),
        nodes,
    };
    wired.run(tasks, controller);
    made
}

impl Made {
    /// Whether the cache shows them.
    pub fn is_known(&self) -> bool {
        let made = self.revision.get();
        made.is_some_and(|&revision| self.pools.revision() >= revision)
    }
}

impl Controller for DefaultPools {
    async fn reconcile(&self, _: &Key) -> Result<Outcome> {
        let pools = &self.ctx.informers.ip_pools;
        let mut newest = 0;
        if *self.wanted.get_or_init(|| pools.all().is_empty()) {
            for range in &self.ctx.config.cluster_cidrs {
                let wanted = pool_of(range);
                let pool = match write::create(&self.ctx, &wanted).await {
                    Err(error) if error.is_already_exists() => {
                        write::get(&self.ctx, &Key::of(&wanted)).await?
                    }
                    created => Some(created?),
                };
                newest = newest.max(pool.as_ref().map(revision).unwrap_or_default());
            }
        }
        // What the cache shows later wakes the nodes by itself.
        self.made.revision.get_or_init(|| newest);
        for node in self.ctx.informers.nodes.all() {
            self.nodes.add(Key::of(&*node));
        }
        Ok(Outcome::Done)
    }
}

fn pool_of(range: &BlockRange) -> IpPool {
    IpPool {
        metadata: ObjectMeta {
            name: Some(block_name(range.cidr)),
            ..Default::default()
        },
        spec: IpPoolSpec {
            cidr: range.cidr.to_string(),
            block_size: Some(range.block_prefix),
            ..Default::default()
        },
        status: None,
    }
}
