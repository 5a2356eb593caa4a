//! Address blocks: every node gets one of each family that its pools have, keeps it, and gets
//! further ones while its pods need them.
//!
//! An `IpBlock` is the claim (see [`peapod_api::net`]): its name is its CIDR, so that of two
//! claims of one block only one can be created. `spec.podCIDRs` of the node is a copy of the
//! first ones. What blocks are cut from is an `IpPool` ([`pools`]); the configured ranges become
//! pools when there are none ([`default_pools`]). [`demand`] says how many a node needs,
//! [`allocate`] which one it gets; one worker runs, so that the blocks of one process come in
//! order.
//!
//! A first block is released when its node is gone and no pod has an address of it any more. A
//! further one is deleted when it has not been needed for a while; its finalizer holds it until
//! the node, which alone knows what it handed out, lets go of it.

pub mod allocate;
mod default_pools;
pub mod demand;
pub mod pools;
mod status;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ObjectMeta;
use parking_lot::Mutex;
use peapod_api::labels::RACK;
use peapod_api::net::{ADDRESSES_IN_USE, IpBlock, IpBlockSpec, block_name};
use serde_json::json;
use tokio::time::Instant;

use self::allocate::Held;
use self::demand::Own;
use self::pools::Source;
use crate::common::{Key, pods};
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "node-ipam";
const COMPONENT: &str = "cidrAllocator";
/// Claims that may be lost to another claimant before giving up until the next event.
const CLAIMS_MAX: usize = 16;

struct Blocks {
    ctx: Context,
    made: default_pools::Made,
    /// Since when a block is spare, by its name.
    spare: Mutex<HashMap<String, Instant>>,
}

/// Wires the loops: one whose keys are names of nodes, those that are gone included, and that of
/// the pools' status.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    status::start(ctx, tasks);
    let nodes = ctx.informers.nodes.clone();
    let wired = Loop::new(ctx, NAME);
    let made = default_pools::start(ctx, tasks, wired.queue());
    wired
        .on_self(&ctx.informers.nodes)
        .on(&ctx.informers.ip_blocks, |change| {
            let nodes = change.both().map(|block| Key::cluster(&block.spec.node));
            nodes.collect::<Vec<_>>()
        })
        .on(&ctx.informers.ip_pools, move |_| {
            let nodes = nodes.all().into_iter();
            nodes.map(|node| Key::of(&*node)).collect::<Vec<_>>()
        })
        .on(&ctx.informers.pods, changed_pods_nodes)
        .workers(1)
        .run(
            tasks,
            Blocks {
                ctx: ctx.clone(),
                made,
                spare: Mutex::default(),
            },
        );
}

/// The nodes of a pod that wants an address, got one, or does not need it any more.
fn changed_pods_nodes(change: &Change<Pod>) -> Vec<Key> {
    let facts = |pod: &Arc<Pod>| {
        let ips: Vec<IpAddr> = ips(pod).collect();
        (pods::node_name(pod).to_owned(), wants_address(pod), ips)
    };
    if change.old.as_ref().map(facts) == change.new.as_ref().map(facts) {
        return Vec::new();
    }
    let nodes = change.both().map(pods::node_name);
    nodes
        .filter(|node| !node.is_empty())
        .map(Key::cluster)
        .collect()
}

impl Controller for Blocks {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        match self.ctx.informers.nodes.get(key) {
            Some(_) if !self.made.is_known() => Ok(Outcome::Done),
            Some(node) if node.metadata.deletion_timestamp.is_none() => {
                self.furnish(&node).await?;
                self.give_back(key).await
            }
            Some(_) => Ok(Outcome::Done),
            None => {
                self.release(key).await?;
                Ok(Outcome::Done)
            }
        }
    }
}

fn cidr_of(block: &IpBlock) -> Option<IpNet> {
    block.spec.cidr.parse().ok()
}

fn is_v4(cidr: IpNet) -> bool {
    cidr.addr().is_ipv4()
}

impl Blocks {
    /// Claims what the node lacks, and copies its first block of each family into its spec.
    async fn furnish(&self, node: &Node) -> Result<()> {
        let labels = node.metadata.labels.as_ref();
        let sources = pools::sources(&self.ctx.informers.ip_pools.all(), labels);
        let mut first = Vec::new();
        for v4 in self.families() {
            let mut sources = sources.clone();
            sources.retain(|source| is_v4(source.range.cidr) == v4);
            first.extend(self.furnish_family(node, v4, &sources).await?);
        }
        let has_pools = !self.ctx.informers.ip_pools.all().is_empty();
        if first.is_empty() && sources.is_empty() && has_pools {
            let message = "no IpPool gives this node a block: none that is enabled selects it";
            let note = Note::warning("CIDRNotAvailable", message);
            self.ctx.events.record(COMPONENT, node, note);
        }
        let known = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
        // Pod CIDRs are immutable once set: a block is never taken from a living node.
        if known.is_none_or(Vec::is_empty) && !first.is_empty() {
            let cidrs: Vec<String> = first.iter().map(IpNet::to_string).collect();
            let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
            write::patch::<Node>(&self.ctx, &Key::of(node), patch).await?;
        }
        Ok(())
    }

    /// The families, that of the first configured range first: whether each is IPv4.
    fn families(&self) -> [bool; 2] {
        let first = self.ctx.config.cluster_cidrs.first();
        match first.is_none_or(|range| is_v4(range.cidr)) {
            true => [true, false],
            false => [false, true],
        }
    }

    /// Claims blocks of a family until the node has room; its first one, if it has one now.
    async fn furnish_family(
        &self,
        node: &Node,
        v4: bool,
        sources: &[Source],
    ) -> Result<Option<IpNet>> {
        let key = Key::of(node);
        let mut own = self.own(&key, v4);
        if own.is_empty() && sources.is_empty() {
            return Ok(None);
        }
        let pods = self.pods_of(&key);
        let wanting = pods.iter().filter(|pod| wants_address(pod)).count() as u64;
        while demand::is_short(&own, wanting) {
            let further = !own.is_empty();
            let claimed = match own.len() < demand::BLOCKS_MAX {
                true => self.claim_next(node, v4, sources, further).await?,
                false => None,
            };
            let Some(cidr) = claimed else {
                self.tell_shortage(node, &own, sources);
                break;
            };
            own.push(Own { cidr, further });
        }
        Ok(own.first().map(|own| own.cidr))
    }

    fn tell_shortage(&self, node: &Node, own: &[Own], sources: &[Source]) {
        let message = if own.len() >= demand::BLOCKS_MAX {
            let most = demand::BLOCKS_MAX;
            format!("its pods need more than {most} blocks: make an IpPool with larger ones")
        } else {
            let ranges = sources.iter().map(|source| {
                let range = &source.range;
                format!(
                    "/{} in {} (IpPool {})",
                    range.block_prefix, range.cidr, source.pool
                )
            });
            match ranges.collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => "no IpPool gives this node a further block".to_owned(),
                ranges => format!("no free block of {ranges}"),
            }
        };
        let note = Note::warning("CIDRNotAvailable", message);
        self.ctx.events.record(COMPONENT, node, note);
    }

    /// The node's blocks of a family, the first one first.
    fn own(&self, node: &Key, v4: bool) -> Vec<Own> {
        let blocks = self
            .ctx
            .informers
            .ip_blocks
            .indexed(&term::on_node(&node.name));
        let own = blocks.iter().filter(|block| !is_leaving(block));
        let mut own: Vec<Own> = own
            .filter_map(|block| {
                let further = is_further(block);
                let cidr = cidr_of(block).filter(|&cidr| is_v4(cidr) == v4)?;
                Some(Own { cidr, further })
            })
            .collect();
        own.sort_by_key(|own| (own.further, own.cidr));
        own
    }

    fn pods_of(&self, node: &Key) -> Vec<Arc<Pod>> {
        self.ctx.informers.pods.indexed(&term::on_node(&node.name))
    }

    /// Claims the next block of the first of the pools that has one.
    async fn claim_next(
        &self,
        node: &Node,
        v4: bool,
        sources: &[Source],
        further: bool,
    ) -> Result<Option<IpNet>> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        // A node that says it has a block keeps it, though the claim was lost.
        if let Some(cidr) = copied(node, v4).filter(|_| !further) {
            let from = sources
                .iter()
                .find(|source| source.range.cidr.contains(&cidr));
            if self.claim(cidr, name, from, further).await? {
                return Ok(Some(cidr));
            }
        }
        let mut held = self.held();
        let rack = rack_of(node);
        for source in sources {
            for _ in 0..CLAIMS_MAX {
                let Some(cidr) = allocate::next_block(&source.range, &held, &rack) else {
                    break;
                };
                if self.claim(cidr, name, Some(source), further).await? {
                    return Ok(Some(cidr));
                }
                // Claimed meanwhile by another process, for a node that the cache will show.
                let rack = String::new();
                held.push(Held { cidr, rack });
            }
        }
        Ok(None)
    }

    fn held(&self) -> Vec<Held> {
        let nodes = &self.ctx.informers.nodes;
        let of = |block: &Arc<IpBlock>| {
            let node = nodes.get(&Key::cluster(&block.spec.node));
            let rack = node.map(|node| rack_of(&node)).unwrap_or_default();
            cidr_of(block).map(|cidr| Held { cidr, rack })
        };
        let blocks = self.ctx.informers.ip_blocks.all();
        blocks.iter().filter_map(of).collect()
    }

    /// Creates the block's object; whether it is now this node's.
    async fn claim(
        &self,
        cidr: IpNet,
        node: &str,
        from: Option<&Source>,
        further: bool,
    ) -> Result<bool> {
        let key = Key::cluster(block_name(cidr));
        let block = IpBlock {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                finalizers: further.then(|| vec![ADDRESSES_IN_USE.to_owned()]),
                ..Default::default()
            },
            spec: IpBlockSpec {
                cidr: cidr.to_string(),
                node: node.to_owned(),
                pool: from.map(|source| source.pool.clone()),
            },
        };
        match write::create(&self.ctx, &block).await {
            Ok(_) => Ok(true),
            // It may be our own claim of a moment ago, which the cache does not show yet.
            Err(error) if error.is_already_exists() => {
                let found = write::get::<IpBlock>(&self.ctx, &key).await?;
                let ours = |found: IpBlock| found.spec.node == node && !is_leaving(&found);
                Ok(found.is_some_and(ours))
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes further blocks of a node that have not been needed for a while.
    async fn give_back(&self, node: &Key) -> Result<Outcome> {
        let pods = self.pods_of(node);
        let wanting = pods.iter().filter(|pod| wants_address(pod)).count() as u64;
        let in_use: Vec<IpAddr> = pods.iter().flat_map(|pod| ips(pod)).collect();
        let spare = [true, false].map(|v4| demand::spare(&self.own(node, v4), wanting, &in_use));
        let spare: Vec<String> = spare.into_iter().flatten().map(block_name).collect();
        let mut wait: Option<Duration> = None;
        for block in self
            .ctx
            .informers
            .ip_blocks
            .indexed(&term::on_node(&node.name))
        {
            let name = block.metadata.name.clone().unwrap_or_default();
            if !spare.contains(&name) {
                self.spare.lock().remove(&name);
                continue;
            }
            let since = *self
                .spare
                .lock()
                .entry(name.clone())
                .or_insert_with(Instant::now);
            match self.ctx.config.block_idle.checked_sub(since.elapsed()) {
                Some(left) if !left.is_zero() => {
                    wait = Some(wait.map_or(left, |wait| wait.min(left)));
                }
                _ => {
                    write::delete::<IpBlock>(&self.ctx, &block.metadata).await?;
                    self.spare.lock().remove(&name);
                }
            }
        }
        Ok(Outcome::maybe(wait))
    }

    /// Releases the blocks of a node that is gone, those without a pod in them.
    async fn release(&self, node: &Key) -> Result<()> {
        let own = self
            .ctx
            .informers
            .ip_blocks
            .indexed(&term::on_node(&node.name));
        if own.is_empty() {
            return Ok(());
        }
        // The cache may not know yet that the node is back.
        if write::get::<Node>(&self.ctx, node).await?.is_some() {
            return Ok(());
        }
        let pods = self.pods_of(node);
        for block in own {
            let used = cidr_of(&block)
                .is_some_and(|cidr| pods.iter().any(|pod| ips(pod).any(|ip| cidr.contains(&ip))));
            if used {
                continue;
            }
            self.spare
                .lock()
                .remove(block.metadata.name.as_deref().unwrap_or_default());
            if is_further(&block) {
                // Nobody is there to let go of it.
                let patch = json!({"metadata": {"uid": block.metadata.uid, "finalizers": null}});
                write::patch::<IpBlock>(&self.ctx, &Key::of(&*block), patch).await?;
            }
            write::delete::<IpBlock>(&self.ctx, &block.metadata).await?;
        }
        Ok(())
    }
}

fn is_leaving(block: &IpBlock) -> bool {
    block.metadata.deletion_timestamp.is_some()
}

fn is_further(block: &IpBlock) -> bool {
    let finalizers = block.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|one| one == ADDRESSES_IN_USE)
}

/// The block of a family in the node's own spec.
fn copied(node: &Node, v4: bool) -> Option<IpNet> {
    let cidrs = node.spec.as_ref()?.pod_cidrs.as_ref()?;
    let mut cidrs = cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok());
    cidrs.find(|&cidr| is_v4(cidr) == v4)
}

fn rack_of(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(RACK))
        .cloned()
        .unwrap_or_default()
}

/// Whether a pod has, or is about to get, an address of its node's blocks.
fn wants_address(pod: &Pod) -> bool {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
    !pods::is_finished(pod) && host_network != Some(true)
}

/// The addresses of a pod that has not ended.
fn ips(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let alive = !pods::is_finished(pod);
    let status = pod.status.iter().filter(move |_| alive);
    let ips = status.flat_map(|status| status.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok())
}
