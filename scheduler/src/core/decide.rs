//! The decision: the best node for a pod, or why there is none.
//!
//! As kube-scheduler's default profile: filters in its order, the first refusal of a node counts;
//! then the weighted sum of the scores; ties are broken at random. In large clusters the search
//! ends when enough feasible nodes are found, and the next one starts where this one ended.

use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::node::NodeId;
use super::plugins::{fit, images, node_affinity, pod_affinity, ports, spread, taints, volumes};
use super::reason::{Plugin, Plugins, Reason, Refusal, Tallied};
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::volumes::Bind;

/// Below this, every node is looked at.
const FEW_NODES: usize = 100;

/// The pod that is decided about.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `namespace/name`.
    pub key: &'a str,
    /// What it asks for.
    pub shape: &'a Shape,
    /// Its priority.
    pub priority: i32,
    /// The node that was cleared for it; tried first.
    pub nominated: Option<&'a str>,
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: Arc<str>,
    /// What its claims need first.
    pub binds: Vec<Bind>,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them could take it.
    pub feasible: usize,
}

/// Why a pod goes nowhere. Displays as `0/3 nodes are available: ...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// What rules out every node at once.
    pub overall: Option<String>,
    /// What each node says.
    pub reasons: Tallied,
    /// Who refused.
    pub plugins: Plugins,
    /// The nodes where removing pods could help.
    pub resolvable: Vec<NodeId>,
}

/// The filters, prepared for one pod.
pub struct Filters<'a> {
    shape: &'a Shape,
    snapshot: &'a Snapshot,
    fit: fit::Fit<'a>,
    claims: volumes::Claims<'a>,
    spread: spread::Hard<'a>,
    affinity: pod_affinity::Affinity<'a>,
}

// === impl Filters ===

impl<'a> Filters<'a> {
    /// Prepares them; [`Snapshot::prepare_for`] must have been called for this shape. The error
    /// says why no node can take the pod.
    pub fn prepare(pod: Candidate<'a>, snapshot: &'a Snapshot) -> Result<Self, String> {
        let shape = pod.shape;
        Ok(Self {
            shape,
            snapshot,
            fit: fit::Fit::prepare(shape, snapshot, pod.key, pod.priority),
            claims: volumes::Claims::prepare(shape, snapshot)?,
            spread: spread::Hard::prepare(shape, snapshot),
            affinity: pod_affinity::Affinity::prepare(shape, snapshot),
        })
    }

    /// Whether the node can take the pod.
    pub fn check(&self, id: NodeId) -> Result<(), Refusal> {
        let node = self.snapshot.node(id);
        taints::check_cordon(self.shape, node)?;
        taints::check(self.shape, node)?;
        node_affinity::check(self.shape, node)?;
        ports::check(self.shape, node)?;
        self.fit.check(id, node)?;
        self.claims.check(node)?;
        self.spread.check(id)?;
        self.affinity.check(id)
    }
}

/// How many feasible nodes are enough, of this many.
fn enough(nodes: usize) -> usize {
    if nodes < FEW_NODES {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(FEW_NODES)
}

/// Decides. The snapshot changes only in what it keeps ready and in where the next search starts.
pub fn decide(
    pod: Candidate<'_>,
    snapshot: &mut Snapshot,
    rng: &mut impl Rng,
) -> Result<Choice, Box<Diagnosis>> {
    snapshot.prepare_for(pod.shape);
    let total = snapshot.order().len();
    let mut diagnosis = Diagnosis {
        nodes: total,
        ..Diagnosis::default()
    };
    let start = snapshot.cursor % total.max(1);
    let mut evaluated = 0;
    let choice = {
        let filters = match Filters::prepare(pod, snapshot) {
            Ok(filters) => filters,
            Err(overall) => {
                diagnosis.overall = Some(overall);
                diagnosis.plugins.insert(Plugin::VolumeBinding);
                return Err(Box::new(diagnosis));
            }
        };
        let nominated = pod.nominated.and_then(|name| snapshot.find_node(name));
        let nominated = nominated.filter(|id| filters.check(*id).is_ok());
        let feasible = match nominated {
            Some(id) => vec![id],
            None => {
                let found = search(&filters, pod.shape, start, &mut diagnosis);
                evaluated = found.1;
                found.0
            }
        };
        best(&feasible, pod.shape, snapshot, rng).map(|id| Choice {
            node: snapshot.node(id).name.clone(),
            binds: filters.claims.plan(snapshot.node(id)).unwrap_or_default(),
            evaluated,
            feasible: feasible.len(),
        })
    };
    snapshot.cursor = (start + evaluated) % total.max(1);
    choice.ok_or_else(|| Box::new(diagnosis))
}

/// The feasible nodes, and how many were looked at.
fn search(
    filters: &Filters<'_>,
    shape: &Shape,
    start: usize,
    diagnosis: &mut Diagnosis,
) -> (Vec<NodeId>, usize) {
    let snapshot = filters.snapshot;
    let order = snapshot.order();
    let mut feasible = Vec::new();
    let mut refused = |id: NodeId, refusal: Refusal| {
        diagnosis.plugins.insert(refusal.plugin);
        diagnosis.reasons.add(refusal.reasons);
        if refusal.resolvable {
            diagnosis.resolvable.push(id);
        }
    };
    if let Some(name) = shape.only_node() {
        let only = snapshot.find_node(name);
        match only.map(|id| (id, filters.check(id))) {
            Some((id, Ok(()))) => feasible.push(id),
            Some((id, Err(refusal))) => refused(id, refusal),
            None => {}
        }
        if feasible.is_empty() {
            let others = order.len() - usize::from(only.is_some());
            let reason = [Reason::NotTheNamedNode];
            diagnosis.plugins.insert(Plugin::NodeAffinity);
            diagnosis.reasons.add_many(reason, others);
        }
        return (feasible, 0);
    }
    let enough = enough(order.len());
    let mut evaluated = 0;
    for &id in order[start..].iter().chain(&order[..start]) {
        evaluated += 1;
        match filters.check(id) {
            Ok(()) => feasible.push(id),
            Err(refusal) => refused(id, refusal),
        }
        if feasible.len() == enough {
            break;
        }
    }
    (feasible, evaluated)
}

fn best(
    feasible: &[NodeId],
    shape: &Shape,
    snapshot: &Snapshot,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    if let [] | [_] = feasible {
        return feasible.first().copied();
    }
    let scores = scores(shape, snapshot, feasible);
    let top = scores.iter().copied().max()?;
    let tied = scores.iter().zip(feasible).filter(|(s, _)| **s == top);
    let tied: Vec<NodeId> = tied.map(|(_, id)| *id).collect();
    Some(tied[rng.random_range(0..tied.len())])
}

/// The weighted sums of the scores of these nodes, with upstream's default weights.
pub fn scores(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Vec<i64> {
    let weighted = [
        (3, Some(taints::score(shape, snapshot, nodes))),
        (2, node_affinity::score(shape, snapshot, nodes)),
        (1, Some(fit::least_allocated(shape, snapshot, nodes))),
        (1, fit::balanced(shape, snapshot, nodes)),
        (2, spread::score(shape, snapshot, nodes)),
        (2, pod_affinity::score(shape, snapshot, nodes)),
        (1, images::score(shape, snapshot, nodes)),
    ];
    let mut sums = vec![0; nodes.len()];
    for (weight, scores) in weighted {
        for (sum, score) in sums.iter_mut().zip(scores.into_iter().flatten()) {
            *sum += weight * score;
        }
    }
    sums
}

// === impl Diagnosis ===

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        match &self.overall {
            Some(text) => write!(f, "{text}."),
            None => write!(f, "{}.", self.reasons),
        }
    }
}
