//! What the core is told.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::drivers::{Capacity, Limits};
use super::node::NodeSpec;
use super::preempt::Budget;
use super::queue::Pending;
use super::shape::Shape;
use super::snapshot::PodKey;
use super::volumes::{Claim, Class, Volume};
use crate::view;

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A pod is there, or changed.
    Pod(Box<PodUpdate>),
    /// A pod is gone.
    PodGone(PodKey),
    /// These are all pods; others are gone.
    PodsAre(HashSet<PodKey>),
    /// A node is there, or changed.
    Node(String, Box<NodeSpec>),
    /// A node is gone.
    NodeGone(String),
    /// These are all nodes; others are gone.
    NodesAre(HashSet<String>),
    /// A claim (`namespace/name`) is there or changed, or is gone.
    Claim(String, Option<Box<Claim>>),
    /// A volume is there or changed, or is gone.
    Volume(String, Option<Box<Volume>>),
    /// A storage class is there or changed, or is gone.
    Class(String, Option<Box<Class>>),
    /// How many volumes a node takes, or that nothing is said of it any more.
    Limits(String, Option<Limits>),
    /// Whether a storage driver tells how much room it has.
    DriverTells(String, bool),
    /// Room for volumes (`namespace/name`) is there or changed, or is gone.
    Capacity(String, Option<Box<Capacity>>),
    /// A namespace's labels, or that it is gone.
    Namespace(String, Option<BTreeMap<String, String>>),
    /// A PodDisruptionBudget (`namespace/name`) is there or changed, or is gone.
    Budget(String, Option<Budget>),
    /// The pod was bound.
    Bound(Arc<Pending>),
    /// The pod could not be bound, or its claims could not.
    NotBound(Arc<Pending>),
    /// The pod could not be preempted.
    NotPreempted(PodKey),
}

/// A pod, as far as the core is concerned.
#[derive(Clone, Debug)]
pub struct PodUpdate {
    /// `namespace/name`.
    pub key: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// What decides where it may go.
    pub shape: Shape,
    /// Its priority.
    pub priority: i32,
    /// When it was created: seconds since the epoch.
    pub created: i64,
    /// When it started, if it did: seconds since the epoch.
    pub started: Option<i64>,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// The node that is being cleared for it.
    pub nominated: Option<String>,
    /// Its scheduling gates.
    pub gates: Vec<String>,
    /// Who schedules it.
    pub scheduler: String,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it has ended.
    pub terminal: bool,
}

/// `namespace/name`.
pub fn key(namespace: Option<&str>, name: Option<&str>) -> String {
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    format!("{namespace}/{name}")
}

impl PodUpdate {
    /// Reduces a pod.
    pub fn of(pod: &view::Pod) -> Self {
        let (meta, spec) = (&pod.metadata, &pod.spec);
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let gates = spec.scheduling_gates.iter();
        let created = meta.creation_timestamp.as_ref();
        let started = pod.status.start_time.as_ref();
        Self {
            key: key(meta.namespace.as_deref(), meta.name.as_deref()).into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            shape: Shape::of(pod),
            priority: spec.priority.unwrap_or(0),
            created: created.map_or(0, |time| time.0.as_second()),
            started: started.map(|time| time.0.as_second()),
            node: full(&spec.node_name),
            nominated: full(&pod.status.nominated_node_name),
            gates: gates.map(|gate| gate.name.clone()).collect(),
            scheduler: full(&spec.scheduler_name).unwrap_or_else(|| "default-scheduler".into()),
            terminating: meta.deletion_timestamp.is_some(),
            terminal: pod.is_terminal(),
        }
    }
}
