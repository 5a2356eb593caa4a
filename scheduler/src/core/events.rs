//! Which change of the cluster could help which parked pod.
//!
//! The answer errs on the side of waking: a pod that is woken for nothing is parked again, a pod
//! that is not woken waits for minutes.

use super::node::NodeId;
use super::plugins::{fit::Fit, node_affinity, ports, taints};
use super::queue::Pending;
use super::reason::{Plugin, Plugins};
use super::shape::{Shape, Term};
use super::snapshot::Snapshot;

/// A change of the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A node came, or changed its labels, taints or capacity.
    Node(NodeId),
    /// A pod was put on a node, or its labels changed there.
    PodPlaced(&'a Shape),
    /// A pod left this node, or is about to.
    PodLeft(NodeId, &'a Shape),
    /// A claim, a volume or a class changed.
    Volumes,
    /// A namespace's labels changed.
    Namespace,
}

/// The rejections that a node's own state can lift.
const BY_NODE: [Plugin; 5] = [
    Plugin::NodeUnschedulable,
    Plugin::TaintToleration,
    Plugin::NodeAffinity,
    Plugin::NodePorts,
    Plugin::NodeResourcesFit,
];

/// Whether the change could let a pod be scheduled that these plugins rejected.
pub fn could_help(change: Change<'_>, pod: &Pending, by: Plugins, snapshot: &Snapshot) -> bool {
    let affinity = by.contains(Plugin::InterPodAffinity);
    let spread = by.contains(Plugin::PodTopologySpread);
    let demands = &pod.shape.affinity;
    let about = |terms: &[Term], shape: &Shape| {
        let mut terms = terms.iter();
        terms.any(|term| term.matches(shape, &snapshot.namespaces))
    };
    match change {
        // Rejected while there was no node at all: nobody to name.
        Change::Node(_) if by.is_empty() => true,
        Change::Node(node) => {
            let domains = [
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
                Plugin::VolumeBinding,
            ];
            by.intersects(&domains) || by.intersects(&BY_NODE) && fits(pod, node, snapshot)
        }
        Change::PodPlaced(other) => {
            affinity && about(&demands.near, other) || spread && counts(&pod.shape, other)
        }
        Change::PodLeft(node, other) => {
            let apart = about(&demands.far, other) || about(&other.affinity.far, &pod.shape);
            let shares = |claim| other.claims.contains(claim);
            by.intersects(&[Plugin::NodeResourcesFit, Plugin::NodePorts])
                && fits(pod, node, snapshot)
                || affinity && apart
                || spread && counts(&pod.shape, other)
                || by.contains(Plugin::NodeVolumeLimits) && !other.claims.is_empty()
                || by.contains(Plugin::VolumeRestrictions) && pod.shape.claims.iter().any(shares)
        }
        Change::Volumes => by.intersects(&[Plugin::VolumeBinding, Plugin::NodeVolumeLimits]),
        Change::Namespace => affinity,
    }
}

/// Whether the pod would fit the node, as far as that can be said of one node alone.
fn fits(pod: &Pending, id: NodeId, snapshot: &Snapshot) -> bool {
    let (shape, node) = (&pod.shape, snapshot.node(id));
    let fit = Fit::prepare(shape, snapshot, &pod.key, pod.priority);
    taints::check_cordon(shape, node).is_ok()
        && taints::check(shape, node).is_ok()
        && node_affinity::check(shape, node).is_ok()
        && ports::check(shape, node).is_ok()
        && fit.check(id, node).is_ok()
}

fn counts(shape: &Shape, other: &Shape) -> bool {
    let hard = shape.spread.iter().filter(|c| c.hard);
    shape.namespace == other.namespace
        && hard.into_iter().any(|c| c.selector.matches(&other.labels))
}
