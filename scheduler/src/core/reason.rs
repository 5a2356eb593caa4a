//! Why a node cannot take a pod, worded as kube-scheduler words it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What rejected a pod. The queue wakes a pod for what could change its rejecters' minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // upstream's plugin names
pub enum Plugin {
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u16);

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is its text below
pub enum Reason {
    Unschedulable,
    UntoleratedTaint { key: String, value: String },
    NodeAffinity,
    NotTheNamedNode,
    Ports,
    TooManyPods,
    Insufficient(Arc<str>),
    Spread,
    SpreadLabelMissing,
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
    VolumeNodeAffinity,
    NoVolumeToBind,
    NoRoomForVolume,
    TooManyVolumes,
    VolumeMissing,
    ReadWriteOncePod,
    NoVictims,
    PreemptionNotHelpful,
}

/// One node's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub plugin: Plugin,
    /// Why; more than one only for resources.
    pub reasons: Vec<Reason>,
    /// Whether removing pods from the node could help.
    pub resolvable: bool,
}

/// How many nodes refused for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied(BTreeMap<Reason, usize>);

// === impl Plugins ===

impl Plugins {
    /// Adds one.
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u16;
    }

    /// Whether it is in the set.
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u16) != 0
    }

    /// Whether any of these is in the set.
    pub fn intersects(self, plugins: &[Plugin]) -> bool {
        plugins.iter().any(|plugin| self.contains(*plugin))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        let mut set = Self::default();
        for plugin in plugins {
            set.insert(plugin);
        }
        set
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal that removing pods could lift.
    pub fn resolvable(plugin: Plugin, reason: Reason) -> Self {
        Self {
            plugin,
            reasons: vec![reason],
            resolvable: true,
        }
    }

    /// A refusal that stands whatever runs on the node.
    pub fn firm(plugin: Plugin, reason: Reason) -> Self {
        Self {
            resolvable: false,
            ..Self::resolvable(plugin, reason)
        }
    }
}

// === impl Tallied ===

impl Tallied {
    /// Counts a node's reasons.
    pub fn add(&mut self, reasons: impl IntoIterator<Item = Reason>) {
        self.add_many(reasons, 1);
    }

    /// Counts several nodes' reasons.
    pub fn add_many(&mut self, reasons: impl IntoIterator<Item = Reason>, nodes: usize) {
        for reason in reasons.into_iter().filter(|_| nodes > 0) {
            *self.0.entry(reason).or_default() += nodes;
        }
    }
}

/// `2 Insufficient cpu, 1 Too many pods`, in the order of the text.
impl fmt::Display for Tallied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |(reason, nodes): (&Reason, &usize)| format!("{nodes} {reason}");
        let mut texts: Vec<String> = self.0.iter().map(pair).collect();
        texts.sort();
        f.write_str(&texts.join(", "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UntoleratedTaint { key, value } => {
                return write!(f, "node(s) had untolerated taint {{{key}: {value}}}");
            }
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::Unschedulable => "node(s) were unschedulable",
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::NotTheNamedNode => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabelMissing => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::Affinity => "node(s) didn't match pod affinity rules",
            Self::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => {
                "node(s) didn't satisfy existing pods anti-affinity rules"
            }
            Self::VolumeNodeAffinity => "node(s) had volume node affinity conflict",
            Self::NoVolumeToBind => "node(s) didn't find available persistent volumes to bind",
            Self::NoRoomForVolume => "node(s) did not have enough free storage",
            Self::TooManyVolumes => "node(s) exceed max volume count",
            Self::VolumeMissing => {
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
            }
            Self::ReadWriteOncePod => {
                "node has pod using PersistentVolumeClaim with the same name and \
                 ReadWriteOncePod access mode"
            }
            Self::NoVictims => "No preemption victims found for incoming pod",
            Self::PreemptionNotHelpful => "Preemption is not helpful for scheduling",
        })
    }
}
