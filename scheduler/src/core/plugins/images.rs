//! ImageLocality: nodes that have the pod's images already.

use super::MAX_SCORE;
use crate::core::node::NodeId;
use crate::core::shape::Shape;
use crate::core::snapshot::Snapshot;

const MIB: i64 = 1024 * 1024;
/// Images smaller than this together make no difference.
const LEAST: i64 = 23 * MIB;
/// More than this per container makes no further difference.
const MOST: i64 = 1000 * MIB;

/// The image's name with its tag written out, as nodes report it.
pub fn normalized_image(name: &str) -> String {
    if name.rfind(':') <= name.rfind('/') {
        return format!("{name}:latest");
    }
    name.to_owned()
}

/// The size of the images that a node has; an image that few nodes have counts less, so that its
/// pods do not all heap up there.
pub fn score(shape: &Shape, snapshot: &Snapshot, nodes: &[NodeId]) -> Option<Vec<i64>> {
    let total = snapshot.order().len().max(1) as f64;
    let images = shape.images.iter();
    let known: Vec<_> = images.filter_map(|name| snapshot.image(name)).collect();
    if known.is_empty() {
        return None;
    }
    let score = |id: &NodeId| {
        let sizes = known.iter().filter_map(|on| {
            let size = *on.get(id)?;
            Some((size as f64 * (on.len() as f64 / total)) as i64)
        });
        let most = MOST * shape.containers.max(1) as i64;
        let sum = sizes.sum::<i64>().clamp(LEAST, most);
        MAX_SCORE * (sum - LEAST) / (most - LEAST)
    };
    Some(nodes.iter().map(score).collect())
}
