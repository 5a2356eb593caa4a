//! NodeAffinity: `nodeSelector` and `affinity.nodeAffinity`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, NodeSelector, NodeSelectorTerm};
use peapod_api::selector::{Requirement, Selector};

use super::normalize;
use crate::core::node::{Node, NodeId};
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::Shape;
use crate::core::snapshot::Snapshot;

/// Which nodes a pod accepts and prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeDemand {
    /// `nodeSelector`.
    pub selector: Selector,
    /// Any one of these must hold, when there are some.
    pub required: Option<Vec<NodeTerm>>,
    /// Each that holds adds its weight.
    pub preferred: Vec<(i64, NodeTerm)>,
}

/// A `NodeSelectorTerm`: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// Demands on the node's labels.
    pub labels: Selector,
    /// The node must have this name.
    pub name: Option<String>,
    /// The node must not have one of these names.
    pub other_than: Vec<String>,
}

// === impl NodeDemand ===

impl NodeDemand {
    /// Reduces a pod's demands.
    pub fn of(selector: Option<&BTreeMap<String, String>>, affinity: Option<&Affinity>) -> Self {
        let affinity = affinity.and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let preferred = affinity
            .and_then(|a| {
                a.preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .into_iter()
            .flatten();
        let preferred = preferred.map(|p| (i64::from(p.weight), NodeTerm::of(&p.preference)));
        Self {
            selector: Selector::from_map(selector.into_iter().flatten()),
            required: required.map(terms),
            preferred: preferred.collect(),
        }
    }

    /// Whether the pod may run on this node, as far as its demands on nodes go.
    pub fn accepts(&self, node: &Node) -> bool {
        self.selector.matches(&node.spec.labels)
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// Whether it accepts every node.
    pub fn is_open(&self) -> bool {
        self.selector.is_everything() && self.required.is_none()
    }
}

/// The terms of a node selector, of which one must hold.
pub fn terms(selector: &NodeSelector) -> Vec<NodeTerm> {
    let terms = selector.node_selector_terms.iter();
    terms.map(NodeTerm::of).collect()
}

// === impl NodeTerm ===

impl NodeTerm {
    fn of(term: &NodeSelectorTerm) -> Self {
        Self::parsed(term).unwrap_or_else(|| Self {
            labels: Selector::nothing(),
            ..Self::default()
        })
    }

    /// `None` for a term that matches nothing: an empty or malformed one.
    fn parsed(term: &NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let mut parsed = Self::default();
        for field in fields {
            let (key, value) = (field.key.as_str(), field.values.as_deref());
            match (key, field.operator.as_str(), value) {
                ("metadata.name", "In", Some([name])) => parsed.name = Some(name.clone()),
                ("metadata.name", "NotIn", Some([name])) => parsed.other_than.push(name.clone()),
                _ => return None,
            }
        }
        let demand = |r: &k8s_openapi::api::core::v1::NodeSelectorRequirement| {
            let values = r.values.as_deref().unwrap_or_default();
            Requirement::of(&r.key, &r.operator, values).ok()
        };
        let demands: Option<Vec<_>> = expressions.iter().map(demand).collect();
        parsed.labels = Selector::all(demands?);
        Some(parsed)
    }

    /// Whether it holds for the node.
    pub fn matches(&self, node: &Node) -> bool {
        self.name.as_deref().is_none_or(|name| name == &*node.name)
            && self.other_than.iter().all(|name| **name != *node.name)
            && self.labels.matches(&node.spec.labels)
    }
}

/// The filter.
pub fn check(shape: &Shape, node: &Node) -> Result<(), Refusal> {
    if shape.node.accepts(node) {
        return Ok(());
    }
    Err(Refusal::firm(Plugin::NodeAffinity, Reason::NodeAffinity))
}

/// The weights of the preferences that hold.
pub fn score(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Option<Vec<i64>> {
    if shape.node.preferred.is_empty() {
        return None;
    }
    let sum = |&id: &NodeId| {
        let preferred = shape.node.preferred.iter();
        let held = preferred.filter(|(_, term)| term.matches(snapshot.node(id)));
        held.map(|(weight, _)| weight).sum()
    };
    let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
    normalize(&mut scores, false);
    Some(scores)
}
