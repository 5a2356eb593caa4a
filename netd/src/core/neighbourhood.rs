//! What is known of other nodes, of blocks, pools and BGP peers; and the facts that this node's
//! ways to other nodes follow from. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_api::net::{BgpPeerSpec, Encapsulation, IpPoolSpec};
use peapod_api::selector::Selector;

use super::ways::{Facts, Other};

/// A node, as far as ways go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its InternalIPs.
    pub ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It leaves the fabric.
    pub leaving: bool,
}

/// A block of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Name of the node that holds it.
    pub node: String,
    /// The block.
    pub cidr: IpNet,
    /// Name of its pool, where it names one.
    pub pool: Option<String>,
}

/// A range that blocks are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// The range.
    pub cidr: IpNet,
    /// How packets get from node to node; each node decides without it.
    pub encapsulation: Option<Encapsulation>,
    /// Whether its pods are masqueraded outside of the cluster; by the link that they leave by
    /// without it.
    pub nat_outgoing: Option<bool>,
    /// MTU of pods with an address of it, in bytes, where it is given.
    pub mtu: Option<u32>,
}

// === impl PoolFacts ===

impl PoolFacts {
    /// Reads a pool; `None` if its range is none.
    pub fn of(spec: &IpPoolSpec) -> Option<Self> {
        Some(Self {
            cidr: spec.cidr.parse::<IpNet>().ok()?.trunc(),
            encapsulation: spec.encapsulation,
            nat_outgoing: spec.nat_outgoing,
            mtu: spec.mtu,
        })
    }
}

/// Everything that is known. Each change tells whether it is one.
#[derive(Debug, Default)]
pub struct Neighbourhood {
    nodes: BTreeMap<String, NodeFacts>,
    blocks: BTreeMap<String, BlockFacts>,
    pools: BTreeMap<String, PoolFacts>,
    /// Which nodes each `BgpPeer` selects; none by one whose selector cannot be read.
    peers: BTreeMap<String, Option<Selector>>,
}

// === impl Neighbourhood ===

impl Neighbourhood {
    /// Notes a node; `None` for one that is gone.
    pub fn set_node(&mut self, name: &str, node: Option<NodeFacts>) -> bool {
        set(&mut self.nodes, name, node)
    }

    /// Notes a block.
    pub fn set_block(&mut self, name: &str, block: Option<BlockFacts>) -> bool {
        set(&mut self.blocks, name, block)
    }

    /// Notes a pool.
    pub fn set_pool(&mut self, name: &str, pool: Option<PoolFacts>) -> bool {
        set(&mut self.pools, name, pool)
    }

    /// Notes a `BgpPeer`.
    pub fn set_peer(&mut self, name: &str, spec: Option<&BgpPeerSpec>) -> bool {
        let selector = spec.map(|spec| match &spec.node_selector {
            None => Some(Selector::everything()),
            Some(selector) => Selector::from_label_selector(selector).ok(),
        });
        set(&mut self.peers, name, selector)
    }

    /// Forgets the nodes that a list lacks.
    pub fn retain_nodes(&mut self, names: &BTreeSet<String>) -> bool {
        retain(&mut self.nodes, names)
    }

    /// Forgets the blocks that a list lacks.
    pub fn retain_blocks(&mut self, names: &BTreeSet<String>) -> bool {
        retain(&mut self.blocks, names)
    }

    /// Forgets the pools that a list lacks.
    pub fn retain_pools(&mut self, names: &BTreeSet<String>) -> bool {
        retain(&mut self.pools, names)
    }

    /// Forgets the peers that a list lacks.
    pub fn retain_peers(&mut self, names: &BTreeSet<String>) -> bool {
        retain(&mut self.peers, names)
    }

    /// Addresses of all nodes.
    pub fn node_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.nodes
            .values()
            .flat_map(|node| node.ips.iter().copied())
    }

    /// The blocks that a node holds.
    pub fn blocks_of(&self, node: &str) -> impl Iterator<Item = IpNet> {
        let held = self.blocks.values().filter(move |block| block.node == node);
        held.map(|block| block.cidr)
    }

    /// The blocks that a node holds, each with what its pool says of masquerading.
    pub fn nat_of(&self, node: &str) -> impl Iterator<Item = (IpNet, Option<bool>)> {
        let held = self.blocks.values().filter(move |block| block.node == node);
        held.map(|block| {
            let pool = self.pool_of(block);
            (block.cidr, pool.and_then(|pool| pool.nat_outgoing))
        })
    }

    /// The ranges of all pools.
    pub fn pools(&self) -> impl Iterator<Item = IpNet> {
        self.pools.values().map(|pool| pool.cidr)
    }

    /// What the ways of `node` follow from; `None` while the API has no such node: by its labels
    /// it may be one of the fabric's.
    pub fn ways(&self, node: &str, ips: &[IpAddr]) -> Option<Facts> {
        let here = self.nodes.get(node)?;
        let own_bgp = self.speaks_bgp(here);
        let mut own = BTreeMap::new();
        let mut others: BTreeMap<String, Other> = BTreeMap::new();
        for block in self.blocks.values() {
            let asked = self.pool_of(block).and_then(|pool| pool.encapsulation);
            if block.node == node {
                own.insert(block.cidr, asked);
            } else if let Some(holder) = self.nodes.get(&block.node) {
                let entry = others.entry(block.node.clone());
                let other = entry.or_insert_with(|| Other {
                    ips: holder.ips.clone(),
                    on_fabric: own_bgp && self.speaks_bgp(holder),
                    leaving: holder.leaving,
                    blocks: BTreeMap::new(),
                });
                other.blocks.insert(block.cidr, asked);
            }
        }
        let asked = |pool: &PoolFacts| {
            use Encapsulation::{Vxlan, VxlanCrossSubnet};
            matches!(pool.encapsulation, Some(Vxlan | VxlanCrossSubnet))
        };
        Some(Facts {
            ips: ips.to_vec(),
            leaving: here.leaving,
            blocks: own,
            others,
            tunnels_asked: self.pools.values().any(asked),
            mtu: self.pools.values().filter_map(|pool| pool.mtu).min(),
        })
    }

    fn pool_of(&self, block: &BlockFacts) -> Option<&PoolFacts> {
        let named = block.pool.as_ref().and_then(|name| self.pools.get(name));
        let around = || {
            self.pools
                .values()
                .find(|pool| pool.cidr.contains(&block.cidr))
        };
        named.or_else(around)
    }

    fn speaks_bgp(&self, node: &NodeFacts) -> bool {
        let mut selectors = self.peers.values().flatten();
        selectors.any(|selector| selector.matches(&node.labels))
    }
}

fn set<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) -> bool {
    match value {
        None => map.remove(name).is_some(),
        Some(value) if map.get(name) == Some(&value) => false,
        Some(value) => {
            map.insert(name.to_owned(), value);
            true
        }
    }
}

fn retain<T>(map: &mut BTreeMap<String, T>, names: &BTreeSet<String>) -> bool {
    let before = map.len();
    map.retain(|name, _| names.contains(name));
    map.len() != before
}
