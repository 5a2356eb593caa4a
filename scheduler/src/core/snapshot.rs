//! The cluster as the scheduler knows it: nodes with their sums, pods by shape and node.
//!
//! It changes by one object at a time, and a decision reads it as it stands; nothing is copied.
//! Pods that were decided but not yet seen bound are in it like all others ("assumed").

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::node::{Node, NodeId, NodeSpec};
use super::preempt::Budget;
use super::resources::Resources;
use super::shape::{Namespaces, Shape};
use super::topology::Topologies;
use super::volumes::Volumes;

/// A pod's name: `namespace/name`.
pub type PodKey = Arc<str>;

/// A shape's place in the snapshot.
pub type ShapeId = usize;

/// What is known of one pod on a node, beyond its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its uid.
    pub uid: Arc<str>,
    /// Its priority.
    pub priority: i32,
    /// When it started, or was created: seconds since the epoch.
    pub started: i64,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A pod on a node.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where it is.
    pub node: NodeId,
    /// Its shape.
    pub shape: ShapeId,
    /// The rest.
    pub facts: Facts,
}

/// How many pods of one shape are on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that are not being deleted.
    pub live: u32,
    /// Those that are.
    pub terminating: u32,
}

/// A shape that some pod has, and where its pods are.
#[derive(Clone, Debug)]
pub struct ShapeEntry {
    /// The shape.
    pub shape: Arc<Shape>,
    /// Its pods by node.
    pub placement: BTreeMap<NodeId, Tally>,
    pods: usize,
}

/// A pod for which a node is being cleared.
#[derive(Clone, Debug)]
pub struct Nomination {
    /// The node.
    pub node: Arc<str>,
    /// The pod's priority.
    pub priority: i32,
    /// What it will ask for.
    pub shape: Arc<Shape>,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<Node>,
    node_ids: HashMap<Arc<str>, NodeId>,
    free_nodes: Vec<NodeId>,
    order: Vec<NodeId>,
    order_stale: bool,
    pods: HashMap<PodKey, Placed>,
    shapes: Vec<Option<ShapeEntry>>,
    shape_ids: HashMap<Arc<Shape>, ShapeId>,
    free_shapes: Vec<ShapeId>,
    by_namespace: HashMap<String, BTreeSet<ShapeId>>,
    by_owner: HashMap<String, BTreeSet<ShapeId>>,
    with_terms: BTreeSet<ShapeId>,
    images: HashMap<Arc<str>, BTreeMap<NodeId, i64>>,
    claim_users: HashMap<String, usize>,
    topologies: Topologies,
    /// The labels of namespaces.
    pub namespaces: Namespaces,
    /// Claims, volumes and classes.
    pub volumes: Volumes,
    /// PodDisruptionBudgets, by `namespace/name`.
    pub budgets: BTreeMap<String, Budget>,
    /// Pods that wait for their victims to leave.
    pub nominations: BTreeMap<PodKey, Nomination>,
    /// Where in the order the next decision starts to look.
    pub cursor: usize,
}

// === nodes ===

impl Snapshot {
    /// Adds a node or takes note of its change. Returns its place if the change is of a kind that
    /// could let a pod onto it.
    pub fn set_node(&mut self, name: &str, spec: NodeSpec) -> Option<NodeId> {
        let id = self.node_id(name);
        let node = &mut self.nodes[id];
        if node.known && node.spec == spec {
            return None;
        }
        let matters = !node.known || node.spec.differs_for_filters(&spec);
        let zone = peapod_api::labels::ZONE;
        self.order_stale |= !node.known || node.spec.label(zone) != spec.label(zone);
        let old = std::mem::replace(&mut node.spec, spec);
        node.known = true;
        self.replace_images(id, &old);
        self.topologies.update(id, &self.nodes);
        matters.then_some(id)
    }

    /// Takes note that a node is gone; its pods stay until they go themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&id) = self.node_ids.get(name) else {
            return;
        };
        let node = &mut self.nodes[id];
        let old = std::mem::take(&mut node.spec);
        node.known = false;
        self.order_stale = true;
        self.nominations
            .retain(|_, nomination| *nomination.node != *name);
        self.replace_images(id, &old);
        self.topologies.update(id, &self.nodes);
        self.release_node(id);
    }

    fn node_id(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.node_ids.get(name) {
            return id;
        }
        let name: Arc<str> = Arc::from(name);
        let node = Node {
            name: name.clone(),
            ..Node::default()
        };
        let id = match self.free_nodes.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.node_ids.insert(name, id);
        id
    }

    fn release_node(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        if !node.known && node.pods.is_empty() && self.node_ids.remove(&node.name).is_some() {
            self.free_nodes.push(id);
        }
    }

    fn replace_images(&mut self, id: NodeId, old: &NodeSpec) {
        let new = &self.nodes[id].spec;
        if new.images == old.images {
            return;
        }
        for (name, _) in &old.images {
            if let Some(nodes) = self.images.get_mut(name) {
                nodes.remove(&id);
                if nodes.is_empty() {
                    self.images.remove(name);
                }
            }
        }
        for (name, size) in &new.images {
            let nodes = self.images.entry(name.clone()).or_default();
            nodes.insert(id, *size);
        }
    }

    /// The nodes in the order in which decisions look at them: zones take turns, so that a sample
    /// of neighbours in the order is a sample of all zones.
    pub fn refresh_order(&mut self) {
        if !std::mem::take(&mut self.order_stale) {
            return;
        }
        let mut zones: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (id, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.known) {
            let zone = node
                .spec
                .label(peapod_api::labels::ZONE)
                .unwrap_or_default();
            zones.entry(zone).or_default().push(id);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        let turn = |at: usize| zones.values().filter_map(move |zone| zone.get(at).copied());
        self.order = (0..longest).flat_map(turn).collect();
    }

    /// The order that was last refreshed.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// The node in this place.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The place of a node that exists.
    pub fn find_node(&self, name: &str) -> Option<NodeId> {
        let id = *self.node_ids.get(name)?;
        self.nodes[id].known.then_some(id)
    }

    /// How many places there are; ids are below it.
    pub fn node_slots(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes exist.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.known).count()
    }

    /// The names of the nodes that exist.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().filter(|n| n.known).map(|n| &n.name)
    }

    /// Which nodes have an image, and its size there in bytes.
    pub fn image(&self, name: &str) -> Option<&BTreeMap<NodeId, i64>> {
        self.images.get(name)
    }

    /// The topologies that were ensured.
    pub fn topologies(&self) -> &Topologies {
        &self.topologies
    }

    /// Makes ready what a decision about this shape will read.
    pub fn prepare_for(&mut self, shape: &Shape) {
        self.refresh_order();
        let mut keys: BTreeSet<String> = shape.topology_keys().map(str::to_owned).collect();
        if shape.owner.is_some() && shape.spread.is_empty() {
            keys.insert(peapod_api::labels::ZONE.to_owned());
        }
        for &id in &self.with_terms {
            let shape = &self.shape(id).shape;
            keys.extend(shape.topology_keys().map(str::to_owned));
        }
        self.topologies.ensure(&keys, &self.nodes);
    }
}

// === pods ===

impl Snapshot {
    /// Puts a pod on a node, or takes note of its change. Returns whether anything did change.
    pub fn place(&mut self, key: &PodKey, shape: &Arc<Shape>, node: &str, facts: Facts) -> bool {
        if let Some(known) = self.pods.get(key) {
            let same_node = *self.nodes[known.node].name == *node;
            let same_shape = *self.shape(known.shape).shape == **shape;
            if same_node && same_shape && known.facts == facts {
                return false;
            }
        }
        self.remove_pod(key);
        let node = self.node_id(node);
        let id = self.intern(shape);
        let entry = self.entry(id);
        let tally = entry.placement.entry(node).or_default();
        match facts.terminating {
            true => tally.terminating += 1,
            false => tally.live += 1,
        }
        entry.pods += 1;
        self.nodes[node].add(key.clone(), shape);
        for claim in &shape.claims {
            let users = self.claim_users.entry(claim_key(shape, claim));
            *users.or_default() += 1;
        }
        let placed = Placed {
            node,
            shape: id,
            facts,
        };
        self.pods.insert(key.clone(), placed);
        true
    }

    /// Takes a pod off its node and returns what was known of it.
    pub fn remove_pod(&mut self, key: &str) -> Option<(Placed, Arc<Shape>)> {
        let (key, placed) = self.pods.remove_entry(key)?;
        let entry = self.entry(placed.shape);
        let shape = entry.shape.clone();
        if let Some(tally) = entry.placement.get_mut(&placed.node) {
            match placed.facts.terminating {
                true => tally.terminating -= 1,
                false => tally.live -= 1,
            }
            if *tally == Tally::default() {
                entry.placement.remove(&placed.node);
            }
        }
        entry.pods -= 1;
        if entry.pods == 0 {
            self.drop_shape(placed.shape, &shape);
        }
        self.nodes[placed.node].remove(&key, &shape);
        for claim in &shape.claims {
            let claim = claim_key(&shape, claim);
            if let Some(users) = self.claim_users.get_mut(&claim) {
                *users -= 1;
                if *users == 0 {
                    self.claim_users.remove(&claim);
                }
            }
        }
        self.release_node(placed.node);
        Some((placed, shape))
    }

    /// A pod on a node.
    pub fn pod(&self, key: &str) -> Option<&Placed> {
        self.pods.get(key)
    }

    /// All pods on nodes.
    pub fn pods(&self) -> impl Iterator<Item = (&PodKey, &Placed)> {
        self.pods.iter()
    }

    /// How many pods on nodes mount this claim.
    pub fn claim_users(&self, shape: &Shape, claim: &str) -> usize {
        let users = self.claim_users.get(&claim_key(shape, claim));
        users.copied().unwrap_or(0)
    }

    /// What nominated pods of at least this priority will take of each node.
    pub fn nominated_for(&self, key: &str, priority: i32) -> HashMap<NodeId, (Resources, usize)> {
        let mut taken: HashMap<NodeId, (Resources, usize)> = HashMap::new();
        for (pod, nomination) in &self.nominations {
            if **pod == *key || nomination.priority < priority {
                continue;
            }
            if let Some(node) = self.find_node(&nomination.node) {
                let (resources, pods) = taken.entry(node).or_default();
                resources.add(&nomination.shape.requests);
                *pods += 1;
            }
        }
        taken
    }
}

fn claim_key(shape: &Shape, claim: &str) -> String {
    format!("{}/{claim}", shape.namespace)
}

// === shapes ===

impl Snapshot {
    /// A shape of some pod on a node.
    pub fn shape(&self, id: ShapeId) -> &ShapeEntry {
        self.shapes[id]
            .as_ref()
            .expect("a shape stays while a pod has it, and only pods' shape ids are kept")
    }

    fn entry(&mut self, id: ShapeId) -> &mut ShapeEntry {
        self.shapes[id]
            .as_mut()
            .expect("a shape stays while a pod has it, and only pods' shape ids are kept")
    }

    /// The shapes in a namespace.
    pub fn shapes_in(&self, namespace: &str) -> impl Iterator<Item = &ShapeEntry> {
        let ids = self.by_namespace.get(namespace).into_iter().flatten();
        ids.map(|&id| self.shape(id))
    }

    /// The shapes that an owner's pods have.
    pub fn shapes_of(&self, owner: &str) -> impl Iterator<Item = &ShapeEntry> {
        let ids = self.by_owner.get(owner).into_iter().flatten();
        ids.map(|&id| self.shape(id))
    }

    /// All shapes.
    pub fn shapes(&self) -> impl Iterator<Item = &ShapeEntry> {
        self.shapes.iter().flatten()
    }

    /// The shapes that say something about other pods.
    pub fn shapes_with_terms(&self) -> impl Iterator<Item = &ShapeEntry> {
        self.with_terms.iter().map(|&id| self.shape(id))
    }

    /// The copy of this shape that some pod on a node has.
    pub fn shared(&self, shape: &Shape) -> Option<Arc<Shape>> {
        let (known, _) = self.shape_ids.get_key_value(shape)?;
        Some(known.clone())
    }

    fn intern(&mut self, shape: &Arc<Shape>) -> ShapeId {
        if let Some(&id) = self.shape_ids.get(shape) {
            return id;
        }
        let entry = Some(ShapeEntry {
            shape: shape.clone(),
            placement: BTreeMap::new(),
            pods: 0,
        });
        let id = match self.free_shapes.pop() {
            Some(id) => {
                self.shapes[id] = entry;
                id
            }
            None => {
                self.shapes.push(entry);
                self.shapes.len() - 1
            }
        };
        self.shape_ids.insert(shape.clone(), id);
        let siblings = self.by_namespace.entry(shape.namespace.clone());
        siblings.or_default().insert(id);
        if let Some(owner) = &shape.owner {
            self.by_owner.entry(owner.clone()).or_default().insert(id);
        }
        if shape.has_terms() {
            self.with_terms.insert(id);
        }
        id
    }

    fn drop_shape(&mut self, id: ShapeId, shape: &Arc<Shape>) {
        self.shapes[id] = None;
        self.free_shapes.push(id);
        self.shape_ids.remove(shape);
        self.with_terms.remove(&id);
        remove_from(&mut self.by_namespace, &shape.namespace, id);
        if let Some(owner) = &shape.owner {
            remove_from(&mut self.by_owner, owner, id);
        }
    }
}

fn remove_from(index: &mut HashMap<String, BTreeSet<ShapeId>>, key: &str, id: ShapeId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
