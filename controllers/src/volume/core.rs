//! What a claim and a volume need next. Pure: [`claim_step`], [`volume_step`], and what binding
//! writes into each.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::storage::{PROVISIONER, SELECTED_NODE};

use super::matching::{self, Reference};
use crate::shell::events::Note;

/// Annotation of a claim: it was bound once; that its volume is missing is then a loss.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of either: we chose the other one, not the user.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotations of a claim: who is to make its volume.
pub const STORAGE_PROVISIONERS: [&str; 2] = [
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];

const LOST_REFERENCE: &str =
    "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
const LOST_VOLUME: &str = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
const MISBOUND: &str = "Two claims are bound to the same volume, this one is bound incorrectly";
/// Why a volume failed to be deleted.
pub const NO_DELETER: &str = "no provisioner made this volume, so that none can delete its data: \
    delete the data and the PersistentVolume by hand, or set persistentVolumeReclaimPolicy: Retain";
const WAIT: &str = "waiting for first consumer to be created before binding";
const NONE_AND_NO_CLASS: &str =
    "no persistent volumes available for this claim and no storage class is set";

/// What a claim is seen to be.
pub struct Observed<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// Every volume.
    pub volumes: &'a [Arc<PersistentVolume>],
    /// The claim's class, if it is there.
    pub class: Option<&'a StorageClass>,
    /// The default class, if there is one.
    pub default_class: Option<&'a str>,
    /// The node that the scheduler selected, if it is there.
    pub node: Option<&'a Node>,
}

/// What to do about a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimStep {
    /// Bind it to this volume, as far as that is not done.
    Bind(Arc<PersistentVolume>),
    /// Make a volume for it on the selected node.
    Provision,
    /// Leave it to another provisioner.
    AskProvisioner(String),
    /// Give it the default class.
    SetClass(String),
    /// Its selected node is gone: have the scheduler select again.
    Reschedule,
    /// Wait; tell why if anyone should know.
    Wait(Option<Note>),
    /// Its volume is lost.
    Lose(Note),
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

/// Decides about a claim.
pub fn claim_step(observed: &Observed<'_>) -> ClaimStep {
    let claim = observed.claim;
    let bound_before = annotation(claim, BIND_COMPLETED).is_some();
    let name = volume_name(claim);
    if name.is_empty() {
        return match bound_before {
            true => ClaimStep::Lose(Note::warning("ClaimLost", LOST_REFERENCE)),
            false => seek(observed),
        };
    }
    let named = |volume: &&Arc<PersistentVolume>| volume.metadata.name.as_deref() == Some(name);
    let Some(volume) = observed.volumes.iter().find(named) else {
        return match bound_before {
            true => ClaimStep::Lose(Note::warning("ClaimLost", LOST_VOLUME)),
            false => ClaimStep::Wait(None),
        };
    };
    match matching::reference(volume, claim) {
        Some(Reference::Bound) => ClaimStep::Bind(volume.clone()),
        Some(Reference::Reserved) | None if bound_before => ClaimStep::Bind(volume.clone()),
        Some(Reference::Reserved) | None => match matching::mismatch(volume, claim) {
            None => ClaimStep::Bind(volume.clone()),
            Some(fault) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {fault}");
                ClaimStep::Wait(Some(Note::warning("VolumeMismatch", message)))
            }
        },
        Some(Reference::Other) if bound_before => {
            ClaimStep::Lose(Note::warning("ClaimMisbound", MISBOUND))
        }
        Some(Reference::Other) => {
            let message = format!("volume \"{name}\" already bound to a different claim.");
            ClaimStep::Wait(Some(Note::warning("FailedBinding", message)))
        }
    }
}

/// Seeks a volume for a claim that names none.
fn seek(observed: &Observed<'_>) -> ClaimStep {
    let claim = observed.claim;
    let mode = observed
        .class
        .and_then(|class| class.volume_binding_mode.as_deref());
    let delayed = mode == Some("WaitForFirstConsumer");
    let selected = annotation(claim, SELECTED_NODE);
    // A delayed claim takes a free volume only when a node is chosen, and only one there.
    let free = !delayed || observed.node.is_some();
    let node = observed.node.filter(|_| delayed);
    if let Some(volume) = matching::best(claim, observed.volumes, node, free) {
        return ClaimStep::Bind(volume.clone());
    }
    let Some(class) = matching::claim_class(claim) else {
        return match observed.default_class {
            Some(class) => ClaimStep::SetClass(class.to_owned()),
            None => ClaimStep::Wait(Some(Note::normal("FailedBinding", NONE_AND_NO_CLASS))),
        };
    };
    if class.is_empty() {
        return ClaimStep::Wait(Some(Note::normal("FailedBinding", NONE_AND_NO_CLASS)));
    }
    let Some(found) = observed.class else {
        let message = format!("storageclass.storage.k8s.io \"{class}\" not found");
        return ClaimStep::Wait(Some(Note::warning("ProvisioningFailed", message)));
    };
    if delayed && selected.is_none() {
        return ClaimStep::Wait(Some(Note::normal("WaitForFirstConsumer", WAIT)));
    }
    match found.provisioner.as_str() {
        PROVISIONER => provision(observed, delayed),
        // Nobody makes volumes for this class; one may be added by hand.
        "kubernetes.io/no-provisioner" => ClaimStep::Wait(None),
        other => ClaimStep::AskProvisioner(other.to_owned()),
    }
}

fn provision(observed: &Observed<'_>, delayed: bool) -> ClaimStep {
    let spec = observed.claim.spec.as_ref();
    let refuse = |fault: &str| {
        let message =
            format!("failed to provision volume with provisioner \"{PROVISIONER}\": {fault}");
        ClaimStep::Wait(Some(Note::warning("ProvisioningFailed", message)))
    };
    if !delayed {
        return refuse("its class must have volumeBindingMode: WaitForFirstConsumer");
    }
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return refuse("it makes directories, not block devices; use volumeMode: Filesystem");
    }
    if spec.is_some_and(|spec| spec.selector.is_some()) {
        return refuse("claim.Spec.Selector is not supported");
    }
    if spec.is_some_and(|spec| spec.data_source.is_some() || spec.data_source_ref.is_some()) {
        return refuse("it cannot fill a volume from a data source");
    }
    match observed.node {
        Some(_) => ClaimStep::Provision,
        None => ClaimStep::Reschedule,
    }
}

/// What to do about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeStep {
    /// Its phase should be this.
    Phase(&'static str),
    /// Its claim is bound elsewhere: forget it, or only which of its name it was.
    Unbind {
        /// Whether the reservation for the name stays.
        keep_name: bool,
    },
    /// Its claim is gone: release it, and delete it.
    Delete,
    /// Its claim is gone and it should be deleted, but a user made it, and nobody knows how.
    Fail,
}

/// Decides about a volume; `claim` is the one that its reference names, if it is there.
pub fn volume_step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(reference) = matching::claim_ref(volume) else {
        return VolumeStep::Phase("Available");
    };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        return VolumeStep::Phase("Available");
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let same = claim.filter(|claim| claim.metadata.uid == reference.uid);
    match same.map(volume_name) {
        Some(bound) if bound == name => VolumeStep::Phase("Bound"),
        // The claim's own step completes the binding.
        Some("") => VolumeStep::Phase("Bound"),
        Some(_) => {
            let annotations = volume.metadata.annotations.as_ref();
            let ours = annotations.is_some_and(|all| all.contains_key(BOUND_BY_CONTROLLER));
            VolumeStep::Unbind { keep_name: !ours }
        }
        None => {
            let spec = volume.spec.as_ref();
            let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
            let annotations = volume.metadata.annotations.as_ref();
            let made_by = annotations.and_then(|all| all.get(peapod_api::storage::PROVISIONED_BY));
            match (policy, made_by.map(String::as_str)) {
                (Some("Delete"), Some(PROVISIONER)) => VolumeStep::Delete,
                (Some("Delete"), None) => VolumeStep::Fail,
                // What another provisioner made, it deletes.
                _ => VolumeStep::Phase("Released"),
            }
        }
    }
}

/// The volume, bound to the claim.
pub fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut bound = volume.clone();
    let reserved = matching::reference(volume, claim);
    if reserved == Some(Reference::Bound) {
        return bound;
    }
    let spec = bound.spec.get_or_insert_default();
    spec.claim_ref = Some(claim_reference(claim));
    if reserved.is_none() {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    bound
}

/// A reference to a claim.
pub fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    crate::shell::events::reference(claim)
}

/// The volume without its claim.
pub fn unbound_volume(volume: &PersistentVolume, keep_name: bool) -> PersistentVolume {
    let mut unbound = volume.clone();
    let spec = unbound.spec.get_or_insert_default();
    if let Some(reference) = spec.claim_ref.as_mut().filter(|_| keep_name) {
        reference.uid = None;
        reference.resource_version = None;
    } else {
        spec.claim_ref = None;
        let annotations = unbound.metadata.annotations.get_or_insert_default();
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    unbound
}

/// The claim, bound to the volume.
pub fn bound_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> PersistentVolumeClaim {
    let mut bound = claim.clone();
    let annotations = bound.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    if volume_name(claim).is_empty() {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        bound.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
    }
    bound
}

/// The status of a bound claim.
pub fn bound_status(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> PersistentVolumeClaimStatus {
    let spec = volume.spec.as_ref();
    let old = claim.status.clone().unwrap_or_default();
    // Once bound the claim's size follows its filesystem's, which may be behind the volume's.
    let known = old.capacity.clone();
    let known = known.filter(|_| old.phase.as_deref() == Some("Bound"));
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.and_then(|spec| spec.access_modes.clone()),
        capacity: known.or_else(|| spec.and_then(|spec| spec.capacity.clone())),
        ..old
    }
}

/// The status of a claim without a volume, in the phase `Pending` or `Lost`.
pub fn unbound_status(claim: &PersistentVolumeClaim, phase: &str) -> PersistentVolumeClaimStatus {
    PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        access_modes: None,
        capacity: None,
        ..claim.status.clone().unwrap_or_default()
    }
}

/// The status of a volume in a phase, with the time of the change.
pub fn volume_status(
    volume: &PersistentVolume,
    phase: &str,
    now: Timestamp,
) -> PersistentVolumeStatus {
    let old = volume.status.clone().unwrap_or_default();
    if old.phase.as_deref() == Some(phase) {
        return old;
    }
    PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        last_phase_transition_time: Some(Time(now)),
        message: None,
        reason: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};

    /// Claims, volumes, classes and nodes; what each claim and each volume needs next.
    fn run(input: &str) -> String {
        let claims: Vec<PersistentVolumeClaim> = objects(input, "PersistentVolumeClaim");
        let volumes: Vec<PersistentVolume> = objects(input, "PersistentVolume");
        let volumes: Vec<_> = volumes.into_iter().map(Arc::new).collect();
        let classes: Vec<StorageClass> = objects(input, "StorageClass");
        let nodes: Vec<Node> = objects(input, "Node");
        let of_claims = claims.iter().map(|claim| {
            let selected = annotation(claim, SELECTED_NODE);
            let class = matching::claim_class(claim);
            let step = claim_step(&Observed {
                claim,
                volumes: &volumes,
                class: classes.iter().find(|c| c.metadata.name.as_deref() == class),
                default_class: classes.first().and_then(|c| c.metadata.name.as_deref()),
                node: nodes
                    .iter()
                    .find(|n| n.metadata.name.as_deref() == selected),
            });
            let step = match step {
                ClaimStep::Bind(volume) => {
                    format!("bind {}", volume.metadata.name.as_ref().unwrap())
                }
                ClaimStep::Wait(None) => "wait".to_owned(),
                ClaimStep::Wait(Some(note)) => format!("wait: {} {}", note.reason, note.message),
                ClaimStep::Lose(note) => format!("lose: {} {}", note.reason, note.message),
                other => format!("{other:?}"),
            };
            format!("{}: {step}", claim.metadata.name.as_ref().unwrap())
        });
        let of_volumes = volumes.iter().map(|volume| {
            let claim = claims.iter().find(|claim| {
                let reference = matching::claim_ref(volume);
                reference.is_some_and(|reference| reference.name == claim.metadata.name)
            });
            let step = volume_step(volume, claim);
            format!("{}: {step:?}", volume.metadata.name.as_ref().unwrap())
        });
        of_claims.chain(of_volumes).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("volume", run);
    }

    #[test]
    fn binding_is_idempotent() {
        let claim = serde_json::json!({"metadata": {"name": "c", "namespace": "d", "uid": "u"}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let volume = serde_json::json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}}});
        let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
        let (bound_v, bound_c) = (bound_volume(&volume, &claim), bound_claim(&claim, &volume));
        assert_eq!(bound_volume(&bound_v, &bound_c), bound_v);
        assert_eq!(bound_claim(&bound_c, &bound_v), bound_c);
        assert_eq!(
            volume_step(&bound_v, Some(&bound_c)),
            VolumeStep::Phase("Bound")
        );
        let mut claim = bound_c.clone();
        claim.status = Some(bound_status(&claim, &bound_v));
        let mut grown = bound_v.clone();
        let capacity = grown.spec.as_mut().unwrap().capacity.as_mut().unwrap();
        capacity.get_mut("storage").unwrap().0 = "2Gi".to_owned();
        assert_eq!(
            Some(bound_status(&claim, &grown)),
            claim.status,
            "its size is another's business"
        );
        let free = unbound_volume(&bound_v, false);
        assert_eq!(free.spec, volume.spec);
    }
}
