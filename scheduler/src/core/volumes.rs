//! Claims, volumes and classes, as far as they say where a pod may run.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use peapod_api::quantity::Quantity;
use peapod_api::selector::{Requirement, Selector};

use super::drivers::Drivers;
use super::plugins::node_affinity::{NodeTerm, terms};

/// The annotation by which the scheduler tells a provisioner where the pod will run.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The annotation by which the binder says that a claim is wholly bound.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// The volume that it is bound to.
    pub bound_to: Option<String>,
    /// Whether that volume is gone.
    pub lost: bool,
    /// Its class; empty for none.
    pub class: String,
    /// The node that was chosen for its volume.
    pub selected_node: Option<String>,
    /// The bytes it asks for.
    pub request: i64,
    /// Its access modes.
    pub modes: Vec<String>,
    /// `Block`; else a filesystem.
    pub block: bool,
    /// Which volumes it accepts.
    pub selector: Selector,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// The nodes that reach it; `None`: all.
    pub nodes: Option<Vec<NodeTerm>>,
    /// The claim it is for: `namespace/name`.
    pub claim: Option<String>,
    /// Its class.
    pub class: String,
    /// Its size in bytes.
    pub capacity: i64,
    /// Its access modes.
    pub modes: Vec<String>,
    /// `Block`; else a filesystem.
    pub block: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its driver and what that calls it, if it has one (CSI).
    pub handle: Option<(String, String)>,
    /// Whether it may be bound: `Available`, and not being deleted.
    pub available: bool,
}

/// A storage class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// `WaitForFirstConsumer`: its claims are bound when a pod that mounts them is scheduled.
    pub waits: bool,
    /// Whether volumes are made on demand.
    pub provisions: bool,
    /// Who makes them.
    pub provisioner: String,
    /// Where volumes can be made: any one of these must hold, when there are some.
    pub allowed: Vec<Selector>,
}

/// What has to be done about a claim before its pod is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Give it this volume.
    To {
        /// The claim: `namespace/name`.
        claim: String,
        /// The volume's name.
        volume: String,
    },
    /// Have a volume made for it, on the chosen node.
    Provision {
        /// The claim: `namespace/name`.
        claim: String,
    },
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// By `namespace/name`.
    pub claims: HashMap<String, Claim>,
    /// By name. The order makes choices among equal volumes repeatable.
    pub volumes: BTreeMap<String, Volume>,
    /// By name.
    pub classes: HashMap<String, Class>,
    /// What drivers say of nodes.
    pub drivers: Drivers,
    /// Volumes that were just chosen for a claim.
    pub reserved: HashMap<String, String>,
}

// === impl Claim ===

impl Claim {
    /// Reduces a claim.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        let (meta, spec) = (&claim.metadata, claim.spec.clone().unwrap_or_default());
        let status = claim.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref());
        let note = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).cloned();
        let complete = phase == Some("Bound") || note(BIND_COMPLETED).is_some();
        let resources = spec.resources.and_then(|r| r.requests).unwrap_or_default();
        let selector = spec.selector.as_ref().map(Selector::from_label_selector);
        Self {
            bound_to: spec.volume_name.filter(|name| complete && !name.is_empty()),
            lost: phase == Some("Lost"),
            class: spec.storage_class_name.unwrap_or_default(),
            selected_node: note(SELECTED_NODE),
            request: bytes(&resources),
            modes: spec.access_modes.unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            selector: selector.map_or_else(Selector::everything, |parsed| {
                parsed.unwrap_or_else(|_| Selector::nothing())
            }),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

fn bytes(list: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    let storage = list.get("storage").map(Quantity::try_from);
    storage.and_then(Result::ok).map_or(0, Quantity::units)
}

// === impl Volume ===

impl Volume {
    /// Reduces a volume.
    pub fn of(volume: &PersistentVolume) -> Self {
        let (meta, spec) = (&volume.metadata, volume.spec.clone().unwrap_or_default());
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        let nodes = spec.node_affinity.and_then(|affinity| affinity.required);
        let claim = spec.claim_ref.map(|claim| {
            let part = Option::unwrap_or_default;
            format!("{}/{}", part(claim.namespace), part(claim.name))
        });
        Self {
            nodes: nodes.as_ref().map(terms),
            claim,
            class: spec.storage_class_name.unwrap_or_default(),
            capacity: bytes(&spec.capacity.unwrap_or_default()),
            modes: spec.access_modes.unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            labels: meta.labels.clone().unwrap_or_default(),
            handle: spec.csi.map(|source| (source.driver, source.volume_handle)),
            available: matches!(phase, None | Some("" | "Pending" | "Available"))
                && meta.deletion_timestamp.is_none(),
        }
    }

    fn suits(&self, key: &str, claim: &Claim) -> bool {
        self.available
            && self.claim.as_deref().is_none_or(|other| other == key)
            && self.class == claim.class
            && self.block == claim.block
            && self.capacity >= claim.request
            && claim.modes.iter().all(|mode| self.modes.contains(mode))
            && claim.selector.matches(&self.labels)
    }
}

// === impl Class ===

impl Class {
    /// Reduces a class.
    pub fn of(class: &StorageClass) -> Self {
        let allowed = class.allowed_topologies.iter().flatten().map(|term| {
            let labels = term.match_label_expressions.iter().flatten();
            let demand = |l: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| {
                Requirement::In(l.key.clone(), l.values.clone())
            };
            Selector::all(labels.map(demand).collect())
        });
        Self {
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            provisioner: class.provisioner.clone(),
            allowed: allowed.collect(),
        }
    }
}

// === impl Volumes ===

impl Volumes {
    /// The smallest volume that suits a claim, is not `taken`, and that `reaches` accepts; one that
    /// was made for this claim comes first.
    pub fn find(
        &self,
        key: &str,
        claim: &Claim,
        taken: impl Fn(&str) -> bool,
        reaches: impl Fn(&Volume) -> bool,
    ) -> Option<&String> {
        let free = |name: &str| self.reserved.get(name).is_none_or(|other| other == key);
        let fitting = self.volumes.iter().filter(|(name, volume)| {
            volume.suits(key, claim) && !taken(name) && free(name) && reaches(volume)
        });
        let best = fitting.min_by_key(|(_, volume)| (volume.claim.is_none(), volume.capacity))?;
        Some(best.0)
    }

    /// The driver of a claim's volume and what names the volume there; of one yet to be made the
    /// claim stands for it.
    pub fn driven(&self, key: &str) -> Option<(String, String)> {
        let claim = self.claims.get(key)?;
        match &claim.bound_to {
            Some(volume) => self.volumes.get(volume)?.handle.clone(),
            None => {
                let class = self.classes.get(&claim.class)?;
                Some((class.provisioner.clone(), format!("for {key}")))
            }
        }
    }

    /// Whether every claim of these is bound.
    pub fn all_bound<'a>(&self, mut claims: impl Iterator<Item = &'a String>) -> bool {
        claims.all(|key| self.claims.get(key).is_some_and(|c| c.bound_to.is_some()))
    }

    /// Sets volumes aside for claims until the binder has taken note.
    pub fn reserve(&mut self, binds: &[Bind]) {
        for bind in binds {
            if let Bind::To { claim, volume } = bind {
                self.reserved.insert(volume.clone(), claim.clone());
            }
        }
    }

    /// Undoes [`reserve`](Self::reserve).
    pub fn release(&mut self, binds: &[Bind]) {
        for bind in binds {
            if let Bind::To { volume, .. } = bind {
                self.reserved.remove(volume);
            }
        }
    }
}
