//! InterPodAffinity: which pods a pod wants near and far, and which want it so.

use std::collections::HashMap;

use super::MAX_SCORE;
use crate::core::node::NodeId;
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::{Shape, Term};
use crate::core::snapshot::{ShapeEntry, Snapshot};
use crate::core::topology::{NOWHERE, Topology};

/// What another pod's required affinity to this one counts for in the score.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// The filter, prepared for one decision.
pub struct Affinity<'a> {
    /// For each required term: the domains with a pod that matches all of them.
    near: Vec<Domains<'a>>,
    /// Nobody matches anywhere, but the pod matches itself: the first of its kind may go anywhere.
    first: bool,
    /// For each term against: the domains with a pod that matches it.
    far: Vec<Domains<'a>>,
    /// The domains with a pod that keeps this one away.
    forbidden: Vec<Domains<'a>>,
}

/// A set of domains of one topology.
struct Domains<'a> {
    topology: &'a Topology,
    inside: Vec<bool>,
}

// === impl Domains ===

impl<'a> Domains<'a> {
    fn none(snapshot: &'a Snapshot, key: &str) -> Self {
        let topology = topology(snapshot, key);
        Self {
            topology,
            inside: vec![false; topology.len()],
        }
    }

    fn add_all_of(&mut self, entry: &ShapeEntry) {
        for node in entry.placement.keys() {
            if let Some(inside) = self.inside.get_mut(self.topology.domain(*node) as usize) {
                *inside = true;
            }
        }
    }

    fn contains(&self, node: NodeId) -> bool {
        let domain = self.topology.domain(node) as usize;
        self.inside.get(domain).copied().unwrap_or(false)
    }

    fn is_empty(&self) -> bool {
        !self.inside.contains(&true)
    }
}

fn topology<'a>(snapshot: &'a Snapshot, key: &str) -> &'a Topology {
    let topology = snapshot.topologies().get(key);
    topology.expect("Snapshot::prepare_for ensured every topology of all terms")
}

/// The shapes that a term could be about.
fn candidates<'a>(
    snapshot: &'a Snapshot,
    term: &'a Term,
) -> Box<dyn Iterator<Item = &'a ShapeEntry> + 'a> {
    if term.namespace_selector.is_some() {
        return Box::new(snapshot.shapes());
    }
    let namespaces = term.namespaces.iter();
    Box::new(namespaces.flat_map(|namespace| snapshot.shapes_in(namespace)))
}

fn about<'a>(snapshot: &'a Snapshot, term: &'a Term) -> impl Iterator<Item = &'a ShapeEntry> {
    let candidates = candidates(snapshot, term);
    candidates.filter(move |entry| term.matches(&entry.shape, &snapshot.namespaces))
}

// === impl Affinity ===

impl<'a> Affinity<'a> {
    /// Finds the domains.
    pub fn prepare(shape: &'a Shape, snapshot: &'a Snapshot) -> Self {
        let near = near(shape, snapshot);
        let own = |term: &Term| term.matches(shape, &snapshot.namespaces);
        let far = shape.affinity.far.iter().map(|term| {
            let mut domains = Domains::none(snapshot, &term.topology_key);
            about(snapshot, term).for_each(|entry| domains.add_all_of(entry));
            domains
        });
        Self {
            first: near.iter().all(Domains::is_empty) && shape.affinity.near.iter().all(own),
            far: far.collect(),
            forbidden: forbidden(shape, snapshot),
            near,
        }
    }

    /// The filter.
    pub fn check(&self, id: NodeId) -> Result<(), Refusal> {
        let plugin = Plugin::InterPodAffinity;
        let nowhere = |domains: &Domains<'_>| domains.topology.domain(id) == NOWHERE;
        let near = self.near.iter().all(|domains| domains.contains(id));
        if self.near.iter().any(nowhere) || !(near || self.first) {
            return Err(Refusal::firm(plugin, Reason::Affinity));
        }
        if self.far.iter().any(|domains| domains.contains(id)) {
            return Err(Refusal::resolvable(plugin, Reason::AntiAffinity));
        }
        if self.forbidden.iter().any(|domains| domains.contains(id)) {
            return Err(Refusal::resolvable(plugin, Reason::ExistingAntiAffinity));
        }
        Ok(())
    }
}

fn near<'a>(shape: &'a Shape, snapshot: &'a Snapshot) -> Vec<Domains<'a>> {
    let terms = &shape.affinity.near;
    let Some(first) = terms.first() else {
        return Vec::new();
    };
    let keys = terms.iter().map(|term| term.topology_key.as_str());
    let mut near: Vec<_> = keys.map(|key| Domains::none(snapshot, key)).collect();
    for entry in about(snapshot, first) {
        let matches = |term: &Term| term.matches(&entry.shape, &snapshot.namespaces);
        if terms[1..].iter().all(matches) {
            near.iter_mut()
                .for_each(|domains| domains.add_all_of(entry));
        }
    }
    near
}

fn forbidden<'a>(shape: &Shape, snapshot: &'a Snapshot) -> Vec<Domains<'a>> {
    let mut by_key: HashMap<&str, Domains<'a>> = HashMap::new();
    for entry in snapshot.shapes_with_terms() {
        for term in &entry.shape.affinity.far {
            if term.matches(shape, &snapshot.namespaces) {
                let key = term.topology_key.as_str();
                let domains = by_key.entry(key);
                let domains = domains.or_insert_with(|| Domains::none(snapshot, key));
                domains.add_all_of(entry);
            }
        }
    }
    by_key.into_values().collect()
}

/// Preferences in both directions, by domain.
#[derive(Default)]
struct Pull<'a> {
    by_key: HashMap<&'a str, Vec<i64>>,
}

impl<'a> Pull<'a> {
    fn add(&mut self, snapshot: &Snapshot, term: &'a Term, weight: i64, entry: &ShapeEntry) {
        let topology = topology(snapshot, &term.topology_key);
        let domains = self.by_key.entry(&term.topology_key);
        let domains = domains.or_insert_with(|| vec![0; topology.len()]);
        for (node, tally) in &entry.placement {
            if let Some(sum) = domains.get_mut(topology.domain(*node) as usize) {
                *sum += weight * i64::from(tally.live + tally.terminating);
            }
        }
    }
}

/// The score: the weights of all preferences that a node's domains meet, scaled between the least
/// and the most.
pub fn score(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Option<Vec<i64>> {
    let mut pull = Pull::default();
    for (weight, term) in &shape.affinity.preferred {
        for entry in about(snapshot, term) {
            pull.add(snapshot, term, *weight, entry);
        }
    }
    for entry in snapshot.shapes_with_terms() {
        let other = &entry.shape.affinity;
        let hard = other.near.iter().map(|term| (HARD_AFFINITY_WEIGHT, term));
        let soft = other.preferred.iter().map(|(weight, term)| (*weight, term));
        for (weight, term) in hard.chain(soft) {
            if term.matches(shape, &snapshot.namespaces) {
                pull.add(snapshot, term, weight, entry);
            }
        }
    }
    if pull.by_key.is_empty() {
        return None;
    }
    let mut scores = vec![0; nodes.len()];
    for (key, domains) in &pull.by_key {
        let topology = topology(snapshot, key);
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score += domains.get(topology.domain(*node) as usize).unwrap_or(&0);
        }
    }
    Some(between(&scores))
}

fn between(scores: &[i64]) -> Vec<i64> {
    let min = scores.iter().copied().min().unwrap_or(0);
    let range = scores.iter().copied().max().unwrap_or(0) - min;
    let scale = |score: &i64| match range {
        0 => 0,
        range => (MAX_SCORE as f64 * ((score - min) as f64 / range as f64)) as i64,
    };
    scores.iter().map(scale).collect()
}
