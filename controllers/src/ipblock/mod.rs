//! Address blocks: every node gets one of each configured family, and keeps it.
//!
//! An `IpBlock` is the claim (see [`peapod_api::net`]): its name is its CIDR, so that of two
//! claims of one block only one can be created. `spec.podCIDRs` of the node is a copy. A block
//! is released when its node is gone and no pod has an address of it any more. [`allocate`]
//! decides; one worker runs, so that the blocks of one process come in order.

pub mod allocate;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ObjectMeta;
use peapod_api::labels::RACK;
use peapod_api::net::{IpBlock, IpBlockSpec, block_name};
use serde_json::json;

use self::allocate::Held;
use crate::common::{Key, pods};
use crate::config::BlockRange;
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "node-ipam";
const COMPONENT: &str = "cidrAllocator";
/// Claims that may be lost to another claimant before giving up until the next event.
const CLAIMS_MAX: usize = 16;

struct Blocks(Context);

/// Wires the loop; its keys are names of nodes, those that are gone included.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.nodes)
        .on(&ctx.informers.ip_blocks, |change| {
            let nodes = change.both().map(|block| Key::cluster(&block.spec.node));
            nodes.collect::<Vec<_>>()
        })
        .on(&ctx.informers.pods, gone_pods_node)
        .workers(1)
        .run(tasks, Blocks(ctx.clone()));
}

/// The node of a pod that was deleted: the last one may have kept a block.
fn gone_pods_node(change: &Change<Pod>) -> Option<Key> {
    let gone = change.old.as_deref().filter(|_| change.new.is_none())?;
    let node = pods::node_name(gone);
    (!node.is_empty()).then(|| Key::cluster(node))
}

impl Controller for Blocks {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        match self.0.informers.nodes.get(key) {
            Some(node) if node.metadata.deletion_timestamp.is_none() => self.furnish(&node).await,
            Some(_) => Ok(()),
            None => self.release(key).await,
        }?;
        Ok(Outcome::Done)
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
        let mut cidrs = Vec::new();
        for range in &self.0.config.cluster_cidrs {
            match self.first_block(node, range).await? {
                Some(cidr) => cidrs.push(cidr.to_string()),
                None => {
                    let message =
                        format!("no free block of /{} in {}", range.block_prefix, range.cidr);
                    let note = Note::warning("CIDRNotAvailable", message);
                    self.0.events.record(COMPONENT, node, note);
                }
            }
        }
        let spec = node.spec.clone().unwrap_or_default();
        let known = spec.pod_cidrs.unwrap_or_default();
        // Pod CIDRs are immutable once set: a block is never taken from a living node.
        if known.is_empty() && !cidrs.is_empty() {
            let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
            write::patch::<Node>(&self.0, &Key::of(node), patch).await?;
        }
        Ok(())
    }

    /// The node's first block of a range's family, claimed now if it has none.
    async fn first_block(&self, node: &Node, range: &BlockRange) -> Result<Option<IpNet>> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let blocks = self.0.informers.ip_blocks.all();
        let own = blocks.iter().find_map(|block| {
            let cidr = cidr_of(block).filter(|&cidr| is_v4(cidr) == is_v4(range.cidr));
            cidr.filter(|_| block.spec.node == name)
        });
        if own.is_some() {
            return Ok(own);
        }
        // A node that says it has a block keeps it, though the claim was lost.
        if let Some(cidr) = copied(node, range)
            && self.claim(cidr, name, range).await?
        {
            return Ok(Some(cidr));
        }
        let mut held = self.held(&blocks);
        let rack = rack_of(node);
        for _ in 0..CLAIMS_MAX {
            let Some(cidr) = allocate::next_block(range, &held, &rack) else {
                return Ok(None);
            };
            if self.claim(cidr, name, range).await? {
                return Ok(Some(cidr));
            }
            // Claimed meanwhile by another process, for a node that the cache will show.
            let rack = String::new();
            held.push(Held { cidr, rack });
        }
        Ok(None)
    }

    fn held(&self, blocks: &[Arc<IpBlock>]) -> Vec<Held> {
        let nodes = &self.0.informers.nodes;
        let of = |block: &Arc<IpBlock>| {
            let node = nodes.get(&Key::cluster(&block.spec.node));
            let rack = node.map(|node| rack_of(&node)).unwrap_or_default();
            cidr_of(block).map(|cidr| Held { cidr, rack })
        };
        blocks.iter().filter_map(of).collect()
    }

    /// Creates the block's object; whether it is now this node's.
    async fn claim(&self, cidr: IpNet, node: &str, range: &BlockRange) -> Result<bool> {
        let key = Key::cluster(block_name(cidr));
        let block = IpBlock {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                ..Default::default()
            },
            spec: IpBlockSpec {
                cidr: cidr.to_string(),
                node: node.to_owned(),
                pool: Some(block_name(range.cidr)),
            },
        };
        match write::create(&self.0, &block).await {
            Ok(_) => Ok(true),
            // It may be our own claim of a moment ago, which the cache does not show yet.
            Err(error) if error.is_already_exists() => {
                let found = write::get::<IpBlock>(&self.0, &key).await?;
                Ok(found.is_some_and(|found| found.spec.node == node))
            }
            Err(error) => Err(error),
        }
    }

    /// Releases the blocks of a node that is gone, those without a pod in them.
    async fn release(&self, node: &Key) -> Result<()> {
        let blocks = self.0.informers.ip_blocks.all();
        let own: Vec<_> = blocks
            .into_iter()
            .filter(|block| block.spec.node == node.name)
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        // The cache may not know yet that the node is back.
        if write::get::<Node>(&self.0, node).await?.is_some() {
            return Ok(());
        }
        let pods = self.0.informers.pods.indexed(&term::on_node(&node.name));
        for block in own {
            let used = cidr_of(&block).is_some_and(|cidr| pods.iter().any(|pod| uses(pod, cidr)));
            if !used {
                write::delete::<IpBlock>(&self.0, &block.metadata).await?;
            }
        }
        Ok(())
    }
}

/// The block of a range's family in the node's own spec.
fn copied(node: &Node, range: &BlockRange) -> Option<IpNet> {
    let cidrs = node.spec.as_ref()?.pod_cidrs.as_ref()?;
    let mut cidrs = cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok());
    cidrs.find(|&cidr| is_v4(cidr) == is_v4(range.cidr))
}

fn rack_of(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(RACK))
        .cloned()
        .unwrap_or_default()
}

/// Whether a pod that has not ended has an address of a block.
fn uses(pod: &Pod, cidr: IpNet) -> bool {
    let ips = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    let mut ips = ips.filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    !pods::is_finished(pod) && ips.any(|ip| cidr.contains(&ip))
}
