//! VolumeBinding, VolumeRestrictions and NodeVolumeLimits: a pod runs where its volumes are or can
//! be made, and where the node takes more of them.

use std::collections::{HashMap, HashSet};

use crate::core::node::Node;
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::Shape;
use crate::core::snapshot::Snapshot;
use crate::core::volumes::{Bind, Claim, Class, Volume, Volumes};

/// The filter, prepared for one decision.
pub struct Claims<'a> {
    volumes: &'a Volumes,
    snapshot: &'a Snapshot,
    /// The drivers of its claims' volumes, and their names there.
    driven: HashSet<(String, String)>,
    /// The volumes of bound claims; `None` for one that is missing.
    bound: Vec<Option<&'a Volume>>,
    /// Claims that wait for the pod's node.
    waiting: Vec<(String, &'a Claim)>,
    /// Whether another pod has a claim that only one pod may have.
    exclusive_taken: bool,
}

impl<'a> Claims<'a> {
    /// Looks the pod's claims up. The error says why no node can take the pod.
    pub fn prepare(shape: &'a Shape, snapshot: &'a Snapshot) -> Result<Self, String> {
        let volumes = &snapshot.volumes;
        let mut prepared = Self {
            volumes,
            snapshot,
            driven: HashSet::new(),
            bound: Vec::new(),
            waiting: Vec::new(),
            exclusive_taken: false,
        };
        let mut immediate = false;
        for name in &shape.claims {
            let key = format!("{}/{name}", shape.namespace);
            let claim = usable(volumes.claims.get(&key), name)?;
            prepared.driven.extend(volumes.driven(&key));
            if let Some(volume) = &claim.bound_to {
                prepared.bound.push(volumes.volumes.get(volume));
            } else if waits(claim, volumes)? {
                prepared.waiting.push((key, claim));
            } else {
                immediate = true;
            }
            let exclusive = claim.modes.iter().any(|mode| mode == "ReadWriteOncePod");
            prepared.exclusive_taken |= exclusive && snapshot.claim_users(shape, name) > 0;
        }
        if immediate {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        Ok(prepared)
    }

    /// The filter.
    pub fn check(&self, node: &Node) -> Result<(), Refusal> {
        if self.exclusive_taken {
            let plugin = Plugin::VolumeRestrictions;
            return Err(Refusal::resolvable(plugin, Reason::ReadWriteOncePod));
        }
        if !self.driven.is_empty() && self.is_over_limit(node) {
            let plugin = Plugin::NodeVolumeLimits;
            return Err(Refusal::resolvable(plugin, Reason::TooManyVolumes));
        }
        let firm = |reason| Err(Refusal::firm(Plugin::VolumeBinding, reason));
        for volume in &self.bound {
            match volume {
                None => return firm(Reason::VolumeMissing),
                Some(volume) if !reaches(volume, node) => {
                    return firm(Reason::VolumeNodeAffinity);
                }
                Some(_) => {}
            }
        }
        match self.plan(node) {
            Some(_) => Ok(()),
            None if self.lacks_room(node) => firm(Reason::NoRoomForVolume),
            None => firm(Reason::NoVolumeToBind),
        }
    }

    /// Whether the pod's volumes, beside those of the node's pods, are more than a driver takes
    /// there. Volumes count once, however many pods share them.
    fn is_over_limit(&self, node: &Node) -> bool {
        let Some(limits) = self.volumes.drivers.limits.get(&*node.name) else {
            return false;
        };
        let limited = |(driver, _): &&(String, String)| limits.contains_key(driver);
        if !self.driven.iter().any(|one| limited(&one)) {
            return false;
        }
        let pods = node.pods.iter().filter_map(|key| self.snapshot.pod(key));
        let there = pods.flat_map(|placed| {
            let shape = &self.snapshot.shape(placed.shape).shape;
            let keys = shape
                .claims
                .iter()
                .map(|name| format!("{}/{name}", shape.namespace));
            keys.filter_map(|key| self.volumes.driven(&key))
        });
        let there: HashSet<_> = there.collect();
        let mut new: HashMap<&str, usize> = HashMap::new();
        for (driver, _) in self.driven.difference(&there) {
            *new.entry(driver).or_default() += 1;
        }
        new.into_iter().any(|(driver, new)| {
            let has = there.iter().filter(|(other, _)| other == driver).count();
            limits.get(driver).is_some_and(|limit| has + new > *limit)
        })
    }

    /// Whether all that is missing here is room for new volumes.
    fn lacks_room(&self, node: &Node) -> bool {
        let mut classes = self.waiting.iter().filter_map(|(_, claim)| {
            let class = self.volumes.classes.get(&claim.class)?;
            class.provisions.then_some((class, *claim))
        });
        classes.any(|(class, claim)| !self.has_room(class, claim, node))
    }

    fn has_room(&self, class: &Class, claim: &Claim, node: &Node) -> bool {
        let drivers = &self.volumes.drivers;
        drivers.has_room(&class.provisioner, &claim.class, claim.request, node)
    }

    /// How the waiting claims get their volumes on this node, if they can.
    pub fn plan(&self, node: &Node) -> Option<Vec<Bind>> {
        let mut plan: Vec<Bind> = Vec::new();
        for (key, claim) in &self.waiting {
            let selected = claim.selected_node.as_deref();
            if selected.is_some_and(|selected| selected != &*node.name) {
                return None;
            }
            let taken = |name: &str| {
                plan.iter()
                    .any(|bind| matches!(bind, Bind::To { volume, .. } if volume == name))
            };
            let found = match selected {
                Some(_) => None,
                None => self.volumes.find(key, claim, taken, |v| reaches(v, node)),
            };
            plan.push(match found {
                Some(volume) => Bind::To {
                    claim: key.clone(),
                    volume: volume.clone(),
                },
                None if self.provisions(claim, node) => Bind::Provision { claim: key.clone() },
                None => return None,
            });
        }
        Some(plan)
    }

    fn provisions(&self, claim: &Claim, node: &Node) -> bool {
        let Some(class) = self.volumes.classes.get(&claim.class) else {
            return false;
        };
        let mut allowed = class.allowed.iter();
        let here = class.allowed.is_empty() || allowed.any(|s| s.matches(&node.spec.labels));
        class.provisions && here && self.has_room(class, claim, node)
    }
}

fn usable<'a>(claim: Option<&'a Claim>, name: &str) -> Result<&'a Claim, String> {
    match claim {
        None => Err(format!("persistentvolumeclaim {name:?} not found")),
        Some(claim) if claim.deleting => {
            Err(format!("persistentvolumeclaim {name:?} is being deleted"))
        }
        Some(claim) if claim.lost => Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
            claim.bound_to.as_deref().unwrap_or_default()
        )),
        Some(claim) => Ok(claim),
    }
}

fn waits(claim: &Claim, volumes: &Volumes) -> Result<bool, String> {
    match volumes.classes.get(&claim.class) {
        Some(class) => Ok(class.waits),
        None if claim.class.is_empty() => Ok(false),
        None => Err(format!(
            "storageclass.storage.k8s.io {:?} not found",
            claim.class
        )),
    }
}

fn reaches(volume: &Volume, node: &Node) -> bool {
    let terms = volume.nodes.as_ref();
    terms.is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
}
