//! Which domain of each topology a node is in: the values of a node label, as small numbers.

use std::collections::{BTreeSet, HashMap};

use super::node::{Node, NodeId};

/// The domain of a node without the label.
pub const NOWHERE: u32 = u32::MAX;

/// How many topologies are kept that nobody has just asked for.
const SPARE: usize = 16;

/// The domains of one node label.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    domains: HashMap<String, u32>,
    of_node: Vec<u32>,
}

/// The topologies in use, by node label.
#[derive(Clone, Debug, Default)]
pub struct Topologies {
    by_key: HashMap<String, Topology>,
}

// === impl Topology ===

impl Topology {
    fn of(key: &str, nodes: &[Node]) -> Self {
        let mut topology = Self::default();
        for (id, node) in nodes.iter().enumerate() {
            topology.set(id, node.spec.label(key).filter(|_| node.known));
        }
        topology
    }

    fn set(&mut self, node: NodeId, value: Option<&str>) {
        if self.of_node.len() <= node {
            self.of_node.resize(node + 1, NOWHERE);
        }
        self.of_node[node] = value.map_or(NOWHERE, |value| {
            if let Some(known) = self.domains.get(value) {
                return *known;
            }
            let next = self.domains.len() as u32;
            self.domains.insert(value.to_owned(), next);
            next
        });
    }

    /// The node's domain, or [`NOWHERE`].
    pub fn domain(&self, node: NodeId) -> u32 {
        self.of_node.get(node).copied().unwrap_or(NOWHERE)
    }

    /// An upper bound of the domains' numbers.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    /// Whether no node has the label.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
}

// === impl Topologies ===

impl Topologies {
    /// Makes the topologies of these labels ready to be read; forgets others beyond a bound.
    pub fn ensure(&mut self, keys: &BTreeSet<String>, nodes: &[Node]) {
        if self.by_key.len() > keys.len() + SPARE {
            self.by_key.retain(|key, _| keys.contains(key));
        }
        for key in keys {
            if !self.by_key.contains_key(key) {
                self.by_key.insert(key.clone(), Topology::of(key, nodes));
            }
        }
    }

    /// The topology of a label that was ensured.
    pub fn get(&self, key: &str) -> Option<&Topology> {
        self.by_key.get(key)
    }

    /// Notes a node's labels after a change. A topology that has seen many more values than there
    /// are nodes is dropped, and built anew when it is next needed.
    pub fn update(&mut self, id: NodeId, nodes: &[Node]) {
        let node = &nodes[id];
        self.by_key.retain(|key, topology| {
            topology.set(id, node.spec.label(key).filter(|_| node.known));
            topology.len() <= 2 * nodes.len() + 64
        });
    }
}
