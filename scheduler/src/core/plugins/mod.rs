//! The plugins of kube-scheduler's default profile, one file each.
//!
//! A plugin is prepared once per decision, from the pod's shape and the snapshot; then it is asked
//! for each node. A filter answers with a [`Refusal`](super::reason::Refusal) or nothing; a score
//! answers for all feasible nodes at once, normalised to 0..=100, or `None` when it has no opinion
//! (which counts as 0 for every node).

pub mod fit;
pub mod images;
pub mod node_affinity;
pub mod pod_affinity;
pub mod ports;
pub mod spread;
pub mod taints;
pub mod volumes;

/// The highest score.
pub const MAX_SCORE: i64 = 100;

/// Scales scores so that the highest is [`MAX_SCORE`]; `reverse` makes the lowest count best.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 {
            0
        } else {
            MAX_SCORE * *score / max
        };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
