//! DefaultPreemption: which pods of lower priority make room for one that fits nowhere.
//!
//! On a copy of nothing: victims are taken out of the snapshot and put back, pod by pod, exactly as
//! they were. It is rare, and bounded by the number of nodes that are tried.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use peapod_api::selector::Selector;
use rand::Rng;

use super::decide::{Candidate, Diagnosis, Filters};
use super::node::NodeId;
use super::reason::{Plugin, Reason, Refusal, Tallied};
use super::shape::Shape;
use super::snapshot::{Facts, PodKey, Snapshot};

/// At least this many nodes are tried, and at least this share of them.
const LEAST_TRIED: usize = 100;
const TRIED_PERCENT: usize = 10;

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Whom it protects.
    pub selector: Selector,
    /// How many of them may be disrupted now.
    pub allowed: i64,
}

/// What preemption does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node that is cleared.
    pub node: Arc<str>,
    /// The pods that have to go, with their uids.
    pub victims: Vec<(PodKey, Arc<str>)>,
}

/// Why preemption does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPreemption {
    /// The pod says so.
    Never,
    /// It has done so already, and a victim is still on its way out.
    Awaiting,
    /// It would not help: what each node says.
    Useless(usize, Tallied),
}

/// A pod that could go.
#[derive(Clone)]
struct Victim {
    key: PodKey,
    shape: Arc<Shape>,
    facts: Facts,
}

/// What a node would cost.
struct Price {
    id: NodeId,
    victims: Vec<Victim>,
    violations: usize,
}

/// Finds the node where the least is lost by making room for the pod.
pub fn preempt(
    pod: Candidate<'_>,
    diagnosis: &Diagnosis,
    snapshot: &mut Snapshot,
    rng: &mut impl Rng,
) -> Result<Preemption, NoPreemption> {
    eligible(pod, snapshot)?;
    let nodes = &diagnosis.resolvable;
    let mut reasons = Tallied::default();
    let unhelpful = diagnosis.nodes - nodes.len().min(diagnosis.nodes);
    reasons.add_many([Reason::PreemptionNotHelpful], unhelpful);
    let enough = (diagnosis.nodes * TRIED_PERCENT / 100).max(LEAST_TRIED);
    let start = match nodes.len() {
        0 => 0,
        count => rng.random_range(0..count),
    };
    let mut prices = Vec::new();
    for &id in nodes[start..].iter().chain(&nodes[..start]) {
        match price(pod, id, snapshot) {
            Ok(price) => prices.push(price),
            Err(refusal) => reasons.add(refusal.reasons),
        }
        if prices.len() == enough {
            break;
        }
    }
    let Some(best) = prices.into_iter().min_by_key(Price::order) else {
        return Err(NoPreemption::Useless(diagnosis.nodes, reasons));
    };
    Ok(Preemption {
        node: snapshot.node(best.id).name.clone(),
        victims: best
            .victims
            .into_iter()
            .map(|v| (v.key, v.facts.uid))
            .collect(),
    })
}

fn eligible(pod: Candidate<'_>, snapshot: &Snapshot) -> Result<(), NoPreemption> {
    if pod.shape.never_preempts {
        return Err(NoPreemption::Never);
    }
    let nominated = pod.nominated.and_then(|name| snapshot.find_node(name));
    let leaving = |key: &PodKey| {
        let facts = snapshot.pod(key).map(|placed| &placed.facts);
        facts.is_some_and(|f| f.terminating && f.priority < pod.priority)
    };
    match nominated {
        Some(id) if snapshot.node(id).pods.iter().any(leaving) => Err(NoPreemption::Awaiting),
        _ => Ok(()),
    }
}

/// The fewest victims on one node: all of lower priority go, then whoever the pod can do with
/// returns, the most important first, and among them first those whose budget would be overdrawn.
fn price(pod: Candidate<'_>, id: NodeId, snapshot: &mut Snapshot) -> Result<Price, Refusal> {
    let lower = lower(pod, id, snapshot);
    if lower.is_empty() {
        return Err(Refusal::firm(Plugin::NodeResourcesFit, Reason::NoVictims));
    }
    for victim in &lower {
        snapshot.remove_pod(&victim.key);
    }
    let name = snapshot.node(id).name.clone();
    let fits = fits(pod, id, snapshot);
    let mut victims = Vec::new();
    let mut violations = 0;
    if fits.is_ok() {
        let (over, under) = by_budget(&lower, snapshot);
        for (victim, violates) in over
            .iter()
            .map(|v| (v, 1))
            .chain(under.iter().map(|v| (v, 0)))
        {
            victim.put_back(&name, snapshot);
            if self::fits(pod, id, snapshot).is_err() {
                snapshot.remove_pod(&victim.key);
                victims.push(victim.clone());
                violations += violates;
            }
        }
    }
    for victim in &lower {
        victim.put_back(&name, snapshot);
    }
    fits.map(|()| Price {
        id,
        victims,
        violations,
    })
}

/// The pods of lower priority, the most important first.
fn lower(pod: Candidate<'_>, id: NodeId, snapshot: &Snapshot) -> Vec<Victim> {
    let pods = snapshot.node(id).pods.iter();
    let placed = pods.filter_map(|key| Some((key, snapshot.pod(key)?)));
    let lower = placed.filter(|(_, placed)| placed.facts.priority < pod.priority);
    let mut lower: Vec<Victim> = lower
        .map(|(key, placed)| Victim {
            key: key.clone(),
            shape: snapshot.shape(placed.shape).shape.clone(),
            facts: placed.facts.clone(),
        })
        .collect();
    let importance = |v: &Victim| (Reverse(v.facts.priority), v.facts.started, v.key.clone());
    lower.sort_by_key(importance);
    lower
}

fn fits(pod: Candidate<'_>, id: NodeId, snapshot: &mut Snapshot) -> Result<(), Refusal> {
    snapshot.prepare_for(pod.shape);
    match Filters::prepare(pod, snapshot) {
        Ok(filters) => filters.check(id),
        Err(_) => Err(Refusal::firm(
            Plugin::VolumeBinding,
            Reason::PreemptionNotHelpful,
        )),
    }
}

/// Those whose going would overdraw a budget, and the others.
fn by_budget(victims: &[Victim], snapshot: &Snapshot) -> (Vec<Victim>, Vec<Victim>) {
    let mut left: Vec<(&Budget, i64)> = snapshot.budgets.values().map(|b| (b, b.allowed)).collect();
    let violates = |victim: &&Victim| {
        let mut over = false;
        for (budget, allowed) in &mut left {
            let shape = &victim.shape;
            if budget.namespace == shape.namespace && budget.selector.matches(&shape.labels) {
                *allowed -= 1;
                over |= *allowed < 0;
            }
        }
        over
    };
    let (over, under): (Vec<&Victim>, Vec<&Victim>) = victims.iter().partition(violates);
    let owned = |list: Vec<&Victim>| list.into_iter().cloned().collect();
    (owned(over), owned(under))
}

impl Budget {
    /// Reduces a budget.
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let spec = budget.spec.as_ref();
        let selector = spec.and_then(|s| s.selector.as_ref());
        // A missing selector selects nothing, and so does a malformed one.
        let selector = selector.map(Selector::from_label_selector);
        let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed);
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: match selector {
                Some(Ok(selector)) => selector,
                _ => Selector::nothing(),
            },
            allowed: i64::from(allowed.unwrap_or(0)),
        }
    }
}

impl Victim {
    fn put_back(&self, node: &str, snapshot: &mut Snapshot) {
        snapshot.place(&self.key, &self.shape, node, self.facts.clone());
    }
}

impl Price {
    /// Upstream's order of what matters: budgets, the highest priority lost, the priorities lost
    /// together, how many pods, and that the most important of them have run the shortest.
    fn order(&self) -> (usize, i64, i64, usize, Reverse<i64>) {
        let priorities = self.victims.iter().map(|v| i64::from(v.facts.priority));
        let highest = priorities.clone().max().unwrap_or(i64::MIN);
        let sum = priorities.map(|p| p + i64::from(i32::MAX) + 1).sum();
        let most_important = self.victims.iter();
        let most_important = most_important.filter(|v| i64::from(v.facts.priority) == highest);
        let earliest = most_important.map(|v| v.facts.started).min();
        let earliest = Reverse(earliest.unwrap_or(i64::MAX));
        (self.violations, highest, sum, self.victims.len(), earliest)
    }
}

impl fmt::Display for NoPreemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("preemption: not eligible due to preemptionPolicy=Never."),
            Self::Awaiting => f.write_str(
                "preemption: not eligible due to a terminating pod on the nominated node.",
            ),
            Self::Useless(nodes, reasons) => {
                write!(f, "preemption: 0/{nodes} nodes are available: {reasons}.")
            }
        }
    }
}
