//! A leaf-spine fabric with a plan's addresses: what stands in whose table, with and without
//! aggregation, and what the loss of a spine does.
//!
//! Leaves are all alike, so few of them need be whole: those have all routes from all spines, and
//! the first has its nodes as speakers. The others have all their sessions, announce what their
//! nodes would, and are told nothing; for the spines, which are whole, they are as good. So the
//! tables are exactly those of the whole fabric, in the memory of a small part of it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::{Net, config};
use crate::Config;
use crate::config::NeighborOptions;
use crate::policy::{Action, Condition, Policy, PrefixRule, Statement};
use crate::speaker::Input;

/// What the fabric is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Racks, with a leaf each; at most 4,096.
    pub racks: u32,
    /// Nodes of a rack, each with a block; at most 16.
    pub nodes: u32,
    /// Spines.
    pub spines: u32,
    /// Leaves that are whole, at least one.
    pub whole: u32,
    /// Leaves announce one summary of their rack instead of a block of each node.
    pub aggregate: bool,
}

/// A fabric at work.
#[derive(Debug)]
pub struct Fabric {
    /// Its speakers.
    pub net: Net,
    plan: Plan,
    spines: Vec<usize>,
    leaves: Vec<usize>,
    nodes: Vec<usize>,
    /// Links of each leaf, in the order of the spines.
    links: Vec<Vec<usize>>,
}

/// Prefixes in the forwarding tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of a leaf (with its own nodes' blocks).
    pub leaf: usize,
    /// Of a spine.
    pub spine: usize,
    /// Of a node.
    pub node: usize,
}

/// What the loss of a spine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// From the loss until no whole leaf forwards to the spine, in milliseconds.
    pub converged_ms: u64,
    /// Prefixes whose forwarding changed on a leaf.
    pub changes: usize,
}

const BLOCKS: u32 = 0x0a40_0000;
const RACK_BITS: u8 = 22;
const BLOCK_BITS: u8 = 26;
/// All sessions are up, and everything was said, after this time.
const SETTLED_MS: u64 = 5_000;

// === impl Fabric ===

impl Fabric {
    /// The fabric, converged.
    pub fn new(plan: Plan) -> Self {
        let mut net = Net::new();
        let spines: Vec<usize> = (0..plan.spines)
            .map(|n| net.add(&format!("spine{n}"), with_policies(65_000 + n, 1 + n)))
            .collect();
        let leaves: Vec<usize> = (0..plan.racks)
            .map(|n| net.add(&format!("leaf{n}"), leaf(&plan, n)))
            .collect();
        let nodes: Vec<usize> = (0..plan.nodes)
            .map(|n| net.add(&format!("node{n}"), node(n)))
            .collect();
        let ends = leaves
            .iter()
            .flat_map(|leaf| spines.iter().map(move |spine| (*spine, *leaf)));
        let ends: Vec<(usize, usize)> = ends.collect();
        let whole = leaves[..plan.whole as usize].to_vec();
        let made = net.links_with(&ends, |(_, leaf), spine_at_leaf, leaf_at_spine| {
            quietly(&mut spine_at_leaf.options);
            quietly(&mut leaf_at_spine.options);
            if plan.aggregate {
                spine_at_leaf.options.export = Some("summaries".to_owned());
            }
            if !whole.contains(&leaf) {
                leaf_at_spine.options.export = Some("nothing".to_owned());
            }
        });
        let links = made.chunks(spines.len()).map(<[usize]>::to_vec).collect();
        let ends: Vec<(usize, usize)> = nodes.iter().map(|node| (leaves[0], *node)).collect();
        net.links_with(&ends, |_, at_node, at_leaf| {
            quietly(&mut at_node.options);
            quietly(&mut at_leaf.options);
        });
        net.run(SETTLED_MS);
        Fabric {
            net,
            plan,
            spines,
            leaves,
            nodes,
            links,
        }
    }

    /// How large the tables are.
    pub fn sizes(&self) -> Sizes {
        let size = |node: usize| self.net.nodes[node].fib.len();
        Sizes {
            leaf: size(self.leaves[0]),
            spine: size(self.spines[0]),
            node: self.nodes.first().map_or(0, |node| size(*node)),
        }
    }

    /// The first spine falls silent; its leaves see it by BFD, after `detection_ms`.
    pub fn lose_spine(&mut self, detection_ms: u64) -> Loss {
        let start = self.net.now.0;
        let whole = self.plan.whole as usize;
        let before = self.changes();
        for leaf in 0..self.leaves.len() {
            self.net.lose_silently(self.links[leaf][0]);
        }
        self.net.run(detection_ms);
        for leaf in 0..whole {
            let address = self.net.address(self.links[leaf][0], self.spines[0]);
            let node = self.leaves[leaf];
            let speaker = &self.net.nodes[node].speaker;
            if let Some(peer) = speaker.peer_named(&address.to_string()) {
                self.net.handle(node, Input::BfdDown { peer });
            }
        }
        while self.uses_first_spine() && self.net.now.0 < start + 60_000 {
            self.net.run(1);
        }
        Loss {
            converged_ms: self.net.now.0 - start,
            changes: (self.changes() - before) / whole,
        }
    }

    /// Whether a whole leaf forwards anything to the first spine.
    pub fn uses_first_spine(&self) -> bool {
        (0..self.plan.whole as usize).any(|leaf| {
            let address = self.net.address(self.links[leaf][0], self.spines[0]);
            let fib = &self.net.nodes[self.leaves[leaf]].fib;
            fib.values()
                .any(|hops| hops.iter().any(|gateway| gateway.address == address))
        })
    }

    fn changes(&self) -> usize {
        let whole = &self.leaves[..self.plan.whole as usize];
        whole.iter().map(|leaf| self.net.nodes[*leaf].changes).sum()
    }
}

/// The configuration of a speaker with the fabric's policies.
fn with_policies(asn: u32, router_id: u32) -> Config {
    let mut config = config(asn, router_id);
    config.policies.insert("nothing".to_owned(), Arc::default());
    let rule = PrefixRule {
        prefix: net(BLOCKS, 10),
        ge: None,
        le: Some(RACK_BITS),
    };
    let summaries = Statement {
        condition: Condition {
            prefixes: vec![rule],
            ..Condition::default()
        },
        action: Action::Accept,
        ..Statement::default()
    };
    let policy = Policy {
        statements: vec![summaries],
        ..Policy::default()
    };
    config
        .policies
        .insert("summaries".to_owned(), Arc::new(policy));
    config
}

fn leaf(plan: &Plan, rack: u32) -> Config {
    let mut config = with_policies(4_200_000_000 + rack, 0x100_0000 + rack);
    if plan.aggregate {
        config.announce.push(net(BLOCKS + (rack << 10), RACK_BITS));
    }
    if rack > 0 {
        // In place of the rack's nodes.
        let blocks = (0..plan.nodes).map(|node| block(rack, node));
        config.announce.extend(blocks);
    }
    config
}

fn node(number: u32) -> Config {
    let mut config = config(4_210_000_000 + number, 0x200_0000 + number);
    config.announce.push(block(0, number));
    config
}

fn block(rack: u32, node: u32) -> IpNet {
    net(BLOCKS + (rack << 10) + (node << 6), BLOCK_BITS)
}

fn net(bits: u32, length: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length).into()
}

/// Timers that do not fill virtual time with keepalives.
fn quietly(options: &mut NeighborOptions) {
    options.timers.hold_seconds = 180;
}
