//! NodeUnschedulable and TaintToleration.

use peapod_api::labels::TAINT_UNSCHEDULABLE;

use super::normalize;
use crate::core::node::{Effect, Node, NodeId, Taint};
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::{Match, Shape, Tolerates};
use crate::core::snapshot::Snapshot;

impl Tolerates {
    fn tolerates(&self, taint: &Taint) -> bool {
        let same = |own: &Option<String>, other: &str| own.as_deref().is_none_or(|o| o == other);
        same(&self.effect, taint.effect.name())
            && same(&self.key, &taint.key)
            && self.value.accepts(&taint.value)
    }
}

impl Match {
    fn accepts(&self, value: &str) -> bool {
        let number = || value.parse::<i64>();
        match self {
            Self::Any => true,
            Self::Equal(expected) => expected == value,
            Self::Less(bound) => number().is_ok_and(|n| n < *bound),
            Self::Greater(bound) => number().is_ok_and(|n| n > *bound),
            Self::Nothing => false,
        }
    }
}

fn tolerated(shape: &Shape, taint: &Taint) -> bool {
    shape.tolerations.iter().any(|t| t.tolerates(taint))
}

/// The first taint that keeps the pod away.
pub fn untolerated<'a>(shape: &Shape, node: &'a Node) -> Option<&'a Taint> {
    let mut taints = node.spec.taints.iter().filter(|t| t.effect.repels());
    taints.find(|taint| !tolerated(shape, taint))
}

/// NodeUnschedulable: cordoned nodes take only pods that tolerate the cordon's taint.
pub fn check_cordon(shape: &Shape, node: &Node) -> Result<(), Refusal> {
    if !node.spec.unschedulable {
        return Ok(());
    }
    let taint = Taint {
        key: TAINT_UNSCHEDULABLE.to_owned(),
        value: String::new(),
        effect: Effect::NoSchedule,
    };
    if tolerated(shape, &taint) {
        return Ok(());
    }
    let refusal = Refusal::firm(Plugin::NodeUnschedulable, Reason::Unschedulable);
    Err(refusal)
}

/// TaintToleration.
pub fn check(shape: &Shape, node: &Node) -> Result<(), Refusal> {
    let Some(taint) = untolerated(shape, node) else {
        return Ok(());
    };
    let reason = Reason::UntoleratedTaint {
        key: taint.key.clone(),
        value: taint.value.clone(),
    };
    Err(Refusal::firm(Plugin::TaintToleration, reason))
}

/// The fewer untolerated taints that say `PreferNoSchedule`, the better.
pub fn score(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Vec<i64> {
    let count = |&id: &NodeId| {
        let taints = snapshot.node(id).spec.taints.iter();
        let bothering = taints.filter(|t| !t.effect.repels() && !tolerated(shape, t));
        bothering.count() as i64
    };
    let mut scores: Vec<i64> = nodes.iter().map(count).collect();
    normalize(&mut scores, true);
    scores
}
