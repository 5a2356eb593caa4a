//! PodTopologySpread: pods spread evenly over the domains of a node label.
//!
//! Constraints that say `DoNotSchedule` filter, the others score. A pod of a ReplicaSet,
//! StatefulSet or ReplicationController that names none is spread over hosts and zones by score:
//! kube-scheduler's system defaults, counting the pods of the same owner.

use peapod_api::labels::{HOSTNAME, ZONE};

use super::{MAX_SCORE, taints};
use crate::core::node::{Node, NodeId};
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::{Shape, Spread};
use crate::core::snapshot::{ShapeEntry, Snapshot};
use crate::core::topology::{NOWHERE, Topology};

/// The hard constraints, prepared for one decision.
pub struct Hard<'a> {
    constraints: Vec<HardConstraint<'a>>,
}

struct HardConstraint<'a> {
    topology: &'a Topology,
    /// Matching pods by domain.
    counts: Vec<i64>,
    /// The fewest in any domain.
    min: i64,
    /// 1 when the pod itself is counted.
    own: i64,
    max_skew: i64,
}

// === impl Hard ===

impl<'a> Hard<'a> {
    /// Counts.
    pub fn prepare(shape: &'a Shape, snapshot: &'a Snapshot) -> Self {
        let hard: Vec<_> = shape.spread.iter().filter(|c| c.hard).collect();
        let topologies: Vec<_> = topologies(snapshot, hard.iter().copied()).collect();
        let prepare = |(at, constraint): (usize, &&Spread)| {
            let of = |id| topologies.iter().all(|t| t.domain(id) != NOWHERE);
            let counted = |id: NodeId| of(id) && included(constraint, shape, snapshot.node(id));
            HardConstraint::prepare(constraint, topologies[at], shape, snapshot, counted)
        };
        let constraints = hard.iter().enumerate().map(prepare).collect();
        Self { constraints }
    }

    /// The filter.
    pub fn check(&self, id: NodeId) -> Result<(), Refusal> {
        let plugin = Plugin::PodTopologySpread;
        for constraint in &self.constraints {
            let domain = constraint.topology.domain(id);
            if domain == NOWHERE {
                return Err(Refusal::firm(plugin, Reason::SpreadLabelMissing));
            }
            let count = constraint.counts[domain as usize].max(0);
            if count + constraint.own - constraint.min > constraint.max_skew {
                return Err(Refusal::resolvable(plugin, Reason::Spread));
            }
        }
        Ok(())
    }
}

impl<'a> HardConstraint<'a> {
    fn prepare(
        constraint: &Spread,
        topology: &'a Topology,
        shape: &Shape,
        snapshot: &Snapshot,
        counted: impl Fn(NodeId) -> bool,
    ) -> Self {
        let pods = pods_by_node(shape, snapshot, |other| {
            constraint.selector.matches(&other.labels)
        });
        // -1 marks a domain without any counted node: it is no domain.
        let mut counts = vec![-1; topology.len()];
        for &id in snapshot.order().iter().filter(|id| counted(**id)) {
            let count = &mut counts[topology.domain(id) as usize];
            *count = (*count).max(0) + pods[id];
        }
        let domains = counts.iter().filter(|count| **count >= 0);
        let enough = domains.clone().count() >= constraint.min_domains;
        let min = domains.min().copied().filter(|_| enough);
        Self {
            topology,
            min: min.unwrap_or(0),
            own: i64::from(constraint.selector.matches(&shape.labels)),
            max_skew: constraint.max_skew,
            counts,
        }
    }
}

fn topologies<'a>(
    snapshot: &'a Snapshot,
    constraints: impl Iterator<Item = &'a Spread>,
) -> impl Iterator<Item = &'a Topology> {
    constraints.map(|c| topology(snapshot, &c.topology_key))
}

fn topology<'a>(snapshot: &'a Snapshot, key: &str) -> &'a Topology {
    let topology = snapshot.topologies().get(key);
    topology.expect("Snapshot::prepare_for ensured every topology of the shape")
}

fn included(constraint: &Spread, shape: &Shape, node: &Node) -> bool {
    (!constraint.honor_affinity || shape.node.is_open() || shape.node.accepts(node))
        && (!constraint.honor_taints || taints::untolerated(shape, node).is_none())
}

/// How many live pods of the namespace match, by node.
fn pods_by_node(shape: &Shape, snapshot: &Snapshot, matches: impl Fn(&Shape) -> bool) -> Vec<i64> {
    let shapes = snapshot.shapes_in(&shape.namespace);
    live_pods(snapshot, shapes.filter(|entry| matches(&entry.shape)))
}

fn live_pods<'a>(snapshot: &Snapshot, shapes: impl Iterator<Item = &'a ShapeEntry>) -> Vec<i64> {
    let mut pods = vec![0; snapshot.node_slots()];
    for (node, tally) in shapes.flat_map(|entry| &entry.placement) {
        pods[*node] += i64::from(tally.live);
    }
    pods
}

/// A soft constraint, as scores see it.
struct Soft<'a> {
    key: &'a str,
    max_skew: i64,
    pods: std::borrow::Cow<'a, [i64]>,
    constraint: Option<&'a Spread>,
}

/// The fewer matching pods the node's domains have, the better.
pub fn score(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Option<Vec<i64>> {
    if !shape.spread.is_empty() {
        let soft = shape.spread.iter().filter(|c| !c.hard);
        let soft = soft.map(|constraint| Soft {
            key: &constraint.topology_key,
            max_skew: constraint.max_skew,
            pods: pods_by_node(shape, snapshot, |o| constraint.selector.matches(&o.labels)).into(),
            constraint: Some(constraint),
        });
        let soft: Vec<_> = soft.collect();
        return (!soft.is_empty()).then(|| score_soft(&soft, true, shape, snapshot, nodes));
    }
    let pods = live_pods(snapshot, snapshot.shapes_of(shape.owner.as_ref()?));
    let soft = |key, max_skew| Soft {
        key,
        max_skew,
        pods: pods.as_slice().into(),
        constraint: None,
    };
    let soft = [soft(HOSTNAME, 3), soft(ZONE, 5)];
    Some(score_soft(&soft, false, shape, snapshot, nodes))
}

fn score_soft(
    soft: &[Soft<'_>],
    need_all_labels: bool,
    shape: &Shape,
    snapshot: &Snapshot,
    nodes: &[NodeId],
) -> Vec<i64> {
    let labelled = |id: NodeId, key: &str| match key {
        HOSTNAME => snapshot.node(id).spec.labels.contains_key(HOSTNAME),
        key => topology(snapshot, key).domain(id) != NOWHERE,
    };
    let eligible = |id: NodeId| !need_all_labels || soft.iter().all(|s| labelled(id, s.key));
    let takes_part: Vec<bool> = nodes.iter().map(|id| eligible(*id)).collect();
    let hosts = takes_part.iter().filter(|part| **part).count();
    let mut sums = vec![0.0; nodes.len()];
    for constraint in soft {
        let counted = |id: NodeId| {
            let included = constraint.constraint;
            eligible(id) && included.is_none_or(|c| included_in(c, shape, snapshot, id))
        };
        let add = |sums: &mut [f64], at: usize, count: i64, domains: usize| {
            let weight = ((domains + 2) as f64).ln();
            sums[at] += count as f64 * weight + (constraint.max_skew - 1) as f64;
        };
        if constraint.key == HOSTNAME {
            for (at, id) in nodes.iter().enumerate() {
                if labelled(*id, HOSTNAME) {
                    add(&mut sums, at, constraint.pods[*id], hosts);
                }
            }
            continue;
        }
        let topology = topology(snapshot, constraint.key);
        let mut counts = vec![0; topology.len()];
        for &id in snapshot.order().iter().filter(|id| counted(**id)) {
            if let Some(count) = counts.get_mut(topology.domain(id) as usize) {
                *count += constraint.pods[id];
            }
        }
        let candidates = nodes.iter().zip(&takes_part).filter(|(_, part)| **part);
        let domains: std::collections::HashSet<u32> =
            candidates.map(|(id, _)| topology.domain(*id)).collect();
        for (at, id) in nodes.iter().enumerate() {
            if let Some(count) = counts.get(topology.domain(*id) as usize) {
                add(&mut sums, at, *count, domains.len());
            }
        }
    }
    normalized(&sums, &takes_part)
}

fn included_in(constraint: &Spread, shape: &Shape, snapshot: &Snapshot, id: NodeId) -> bool {
    included(constraint, shape, snapshot.node(id))
}

/// The fewest becomes the highest score; nodes that take no part get none.
fn normalized(sums: &[f64], takes_part: &[bool]) -> Vec<i64> {
    let rounded = sums.iter().map(|sum| sum.round() as i64).zip(takes_part);
    let taking = rounded
        .clone()
        .filter(|(_, part)| **part)
        .map(|(sum, _)| sum);
    let (min, max) = (taking.clone().min().unwrap_or(0), taking.max().unwrap_or(0));
    let score = |(sum, part): (i64, &bool)| match (part, max) {
        (false, _) => 0,
        (true, 0) => MAX_SCORE,
        (true, max) => MAX_SCORE * (max + min - sum) / max,
    };
    rounded.map(score).collect()
}
