//! What the scheduler holds of a node: what it is, and the sums of what runs on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use peapod_api::quantity::Quantity;

use super::plugins::ports::HostPort;
use super::resources::Resources;
use super::shape::Shape;
use super::snapshot::PodKey;
use crate::view;

/// A node's place in the snapshot; reused after the node is gone.
pub type NodeId = usize;

/// A node, and the sums of its pods.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Whether the node object is there; pods may name a node that is not (yet, or any more).
    pub known: bool,
    /// Its own side: labels, taints, capacity.
    pub spec: NodeSpec,
    /// What its pods ask for together.
    pub requested: Resources,
    /// What its pods count for in scores: milli-CPU and bytes.
    pub weighed: (i64, i64),
    /// Its pods.
    pub pods: Vec<PodKey>,
    /// The ports that they take.
    pub ports: Vec<HostPort>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpec {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may ask for together.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: usize,
    /// The images that it has: normalised name and size in bytes.
    pub images: Vec<(Arc<str>, i64)>,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They are not scheduled there.
    NoSchedule,
    /// They are scheduled there last.
    PreferNoSchedule,
    /// They are evicted, and not scheduled there.
    NoExecute,
}

// === impl Effect ===

impl Effect {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }

    /// Whether it keeps pods away.
    pub fn repels(self) -> bool {
        self != Self::PreferNoSchedule
    }
}

// === impl NodeSpec ===

impl NodeSpec {
    /// Reduces a node.
    pub fn of(node: &view::Node) -> Self {
        let pods = node.status.allocatable.get("pods");
        let pods = pods.and_then(|text| Quantity::try_from(text).ok());
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: node.spec.taints.iter().filter_map(Taint::of).collect(),
            unschedulable: node.spec.unschedulable,
            allocatable: Resources::of(&node.status.allocatable),
            max_pods: pods.map_or(0, |count| count.units().max(0) as usize),
            images: images(node),
        }
    }

    /// Whether more than the images differs.
    pub fn differs_for_filters(&self, other: &Self) -> bool {
        self.labels != other.labels
            || self.taints != other.taints
            || self.unschedulable != other.unschedulable
            || self.allocatable != other.allocatable
            || self.max_pods != other.max_pods
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

fn images(node: &view::Node) -> Vec<(Arc<str>, i64)> {
    let images = node.status.images.iter();
    images
        .flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            let names = image.names.iter().flatten();
            names.map(move |name| (Arc::from(name.as_str()), size))
        })
        .collect()
}

impl Taint {
    fn of(taint: &k8s_openapi::api::core::v1::Taint) -> Option<Self> {
        let effects = [
            Effect::NoSchedule,
            Effect::PreferNoSchedule,
            Effect::NoExecute,
        ];
        let effect = effects.into_iter().find(|e| e.name() == taint.effect)?;
        Some(Self {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
            effect,
        })
    }
}

// === impl Node ===

impl Node {
    /// Adds a pod to the sums.
    pub fn add(&mut self, key: PodKey, shape: &Shape) {
        self.requested.add(&shape.requests);
        self.weighed.0 += shape.weighed.0;
        self.weighed.1 += shape.weighed.1;
        self.ports.extend_from_slice(&shape.ports);
        self.pods.push(key);
    }

    /// Takes a pod out of the sums.
    pub fn remove(&mut self, key: &PodKey, shape: &Shape) {
        self.requested.subtract(&shape.requests);
        self.weighed.0 -= shape.weighed.0;
        self.weighed.1 -= shape.weighed.1;
        for port in &shape.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(at) = self.pods.iter().position(|known| known == key) {
            self.pods.swap_remove(at);
        }
    }
}
