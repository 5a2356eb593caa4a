//! NodeResourcesFit with its LeastAllocated score, and NodeResourcesBalancedAllocation.

use std::collections::HashMap;
use std::sync::Arc;

use super::MAX_SCORE;
use crate::core::node::{Node, NodeId};
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::resources::Resources;
use crate::core::shape::Shape;
use crate::core::snapshot::Snapshot;

type Amount = fn(&Resources) -> i64;

/// The resources that every node has, and how each is read.
const AMOUNTS: [(&str, Amount); 3] = [
    ("cpu", |r| r.milli_cpu),
    ("memory", |r| r.memory),
    ("ephemeral-storage", |r| r.ephemeral),
];

/// The filter, prepared for one decision.
pub struct Fit<'a> {
    shape: &'a Shape,
    /// What pods that wait for a node to be cleared will take.
    nominated: HashMap<NodeId, (Resources, usize)>,
}

impl<'a> Fit<'a> {
    /// For the pod `key` of this priority.
    pub fn prepare(shape: &'a Shape, snapshot: &Snapshot, key: &str, priority: i32) -> Self {
        Self {
            shape,
            nominated: snapshot.nominated_for(key, priority),
        }
    }

    /// The filter.
    pub fn check(&self, id: NodeId, node: &Node) -> Result<(), Refusal> {
        let (nominated, pods) = match self.nominated.get(&id) {
            Some((resources, pods)) => (Some(resources), *pods),
            None => (None, 0),
        };
        let asked = &self.shape.requests;
        let have = &node.spec.allocatable;
        let missing = |asked: i64, have: i64, taken: i64, nominated: i64| {
            asked > 0 && asked > have.saturating_sub(taken).saturating_sub(nominated)
        };
        let nominated_of = |get: Amount| nominated.map_or(0, get);
        let mut reasons = Vec::new();
        let mut resolvable = true;
        if node.pods.len() + pods + 1 > node.spec.max_pods {
            reasons.push(Reason::TooManyPods);
            resolvable &= node.spec.max_pods > 0;
        }
        for (name, get) in AMOUNTS {
            let taken = get(&node.requested);
            if missing(get(asked), get(have), taken, nominated_of(get)) {
                reasons.push(Reason::Insufficient(Arc::from(name)));
                resolvable &= get(asked) <= get(have);
            }
        }
        for (name, amount) in &asked.scalars {
            let (taken, have) = (node.requested.scalar(name), have.scalar(name));
            let nominated = nominated.map_or(0, |n| n.scalar(name));
            if missing(*amount, have, taken, nominated) {
                reasons.push(Reason::Insufficient(name.clone()));
                resolvable &= *amount <= have;
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Refusal {
            plugin: Plugin::NodeResourcesFit,
            reasons,
            resolvable,
        })
    }
}

/// LeastAllocated: the share of CPU and memory that stays free.
pub fn least_allocated(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Vec<i64> {
    let free = |asked: i64, have: i64| match have {
        have if asked > have => 0,
        have => (have - asked) * MAX_SCORE / have,
    };
    let score = |&id: &NodeId| {
        let node = snapshot.node(id);
        let have = &node.spec.allocatable;
        let pairs = [
            (node.weighed.0 + shape.weighed.0, have.milli_cpu),
            (node.weighed.1 + shape.weighed.1, have.memory),
        ];
        let known = pairs.iter().filter(|(_, have)| *have > 0);
        let sum: i64 = known.clone().map(|(asked, have)| free(*asked, *have)).sum();
        sum / (known.count().max(1) as i64)
    };
    nodes.iter().map(score).collect()
}

/// BalancedAllocation: how alike the used shares of CPU and memory would be. It has no opinion on
/// pods that ask for neither.
pub fn balanced(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Option<Vec<i64>> {
    let asked = &shape.requests;
    if asked.milli_cpu == 0 && asked.memory == 0 {
        return None;
    }
    let share = |asked: i64, have: i64| (asked as f64 / have as f64).min(1.0);
    let score = |&id: &NodeId| {
        let node = snapshot.node(id);
        let have = &node.spec.allocatable;
        let deviation = if have.milli_cpu > 0 && have.memory > 0 {
            let cpu = share(node.requested.milli_cpu + asked.milli_cpu, have.milli_cpu);
            let memory = share(node.requested.memory + asked.memory, have.memory);
            ((cpu - memory) / 2.0).abs()
        } else {
            0.0
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    };
    Some(nodes.iter().map(score).collect())
}
