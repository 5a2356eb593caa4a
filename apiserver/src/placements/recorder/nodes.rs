//! What of a node a placement depends on: its boot, its rack, and the leaves that it has sessions
//! with.

use jiff::{SignedDuration, Timestamp};
use peapod_api::net::{Arrival, Departure, PlacementLeaf};

use super::{Kept, Recorder};
use crate::placements::facts::NodeFacts;

/// How long a node's leaves must stay as they are before its placements say so: a flapping
/// session does not fill the log.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// What is known of a node.
#[derive(Debug, Default)]
pub struct Node {
    pub facts: NodeFacts,
    /// `None` until its sessions are heard of.
    pub leaves: Option<Vec<PlacementLeaf>>,
    /// Leaves that have yet to settle, and when they will have.
    pub next: Option<(Vec<PlacementLeaf>, Timestamp)>,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn node(&mut self, facts: NodeFacts, at: Timestamp, out: &mut Vec<Kept>) {
        let name = facts.name.clone();
        let node = self.nodes.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut node.facts, facts);
        let (boot, rack) = (node.facts.boot.clone(), node.facts.rack.clone());
        // Nodes report often; what their pods' places depend on changes seldom.
        if before.name == name && (&before.boot, &before.rack) == (&boot, &rack) {
            return;
        }
        for uid in self.on_node(&name) {
            let Some(kept) = self.open.get_mut(&uid) else {
                continue;
            };
            if !boot.is_empty() && !kept.boot.is_empty() && kept.boot != boot {
                let why = (Arrival::NodeRestarted, Departure::NodeRestarted);
                self.moved(&uid, why, None, at, out);
            } else if (kept.boot.is_empty() && !boot.is_empty()) || kept.spec.rack != rack {
                kept.boot.clone_from(&boot);
                kept.spec.rack.clone_from(&rack);
                out.push(kept.clone());
            }
        }
    }

    fn on_node(&self, node: &str) -> Vec<String> {
        let on_it = self.open.iter().filter(|(_, kept)| kept.spec.node == node);
        on_it.map(|(uid, _)| uid.clone()).collect()
    }

    pub(super) fn leaves(&mut self, name: String, leaves: Vec<PlacementLeaf>, at: Timestamp) {
        let node = self.nodes.entry(name).or_default();
        match &mut node.next {
            Some((waiting, _)) if *waiting == leaves => {}
            Some(_) if node.leaves.as_ref() == Some(&leaves) => node.next = None,
            Some(waiting) => *waiting = (leaves, at + SETTLE),
            None if node.leaves.as_ref() == Some(&leaves) => {}
            None => node.next = Some((leaves, at + SETTLE)),
        }
    }

    /// Makes the leaves that have settled those of the placements.
    pub(super) fn settle(&mut self, at: Timestamp) -> Vec<Kept> {
        let mut out = Vec::new();
        let due = |node: &Node| node.next.as_ref().is_some_and(|(_, due)| *due <= at);
        let settled: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| due(node))
            .map(|(name, _)| name.clone())
            .collect();
        for name in settled {
            let node = self.nodes.entry(name.clone()).or_default();
            if let Some((leaves, _)) = node.next.take() {
                node.leaves = Some(leaves.clone());
                for uid in self.on_node(&name) {
                    self.settle_one(&uid, &leaves, at, &mut out);
                }
            }
        }
        out
    }

    fn settle_one(
        &mut self,
        uid: &str,
        leaves: &[PlacementLeaf],
        at: Timestamp,
        out: &mut Vec<Kept>,
    ) {
        let Some(kept) = self.open.get_mut(uid) else {
            return;
        };
        let before = &kept.spec.leaves;
        if before == leaves {
            return;
        }
        if before.is_empty() && kept.spec.reason != Arrival::LeafChanged {
            // The first that is heard of any: it was so all along.
            kept.spec.leaves = leaves.to_vec();
            out.push(kept.clone());
            return;
        }
        let names = |these: &[PlacementLeaf], others: &[PlacementLeaf]| {
            let only = these.iter().filter(|one| !others.contains(one));
            only.map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        let (lost, found) = (names(before, leaves), names(leaves, before));
        let said = [("lost", lost), ("found", found)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")));
        let message = said.collect::<Vec<_>>().join("; ");
        let why = (Arrival::LeafChanged, Departure::LeafChanged);
        self.moved(uid, why, Some(message), at, out);
    }
}
