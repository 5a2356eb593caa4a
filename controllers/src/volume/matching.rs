//! Which volume serves a claim best. Pure.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume,
    PersistentVolumeClaim,
};
use peapod_api::quantity::Quantity;
use peapod_api::selector::{Requirement, Selector};

/// The old annotation of the class, which still counts before the field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const FILESYSTEM: &str = "Filesystem";

/// How a reference from a volume stands to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// It names this very claim.
    Bound,
    /// It names the claim, but not which of that name: the volume is reserved for it.
    Reserved,
    /// It names another.
    Other,
}

/// How a volume's `claimRef` stands to a claim; `None` when it has none.
pub fn reference(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Reference> {
    let reference = claim_ref(volume)?;
    let meta = &claim.metadata;
    if reference.name != meta.name || reference.namespace != meta.namespace {
        return Some(Reference::Other);
    }
    Some(match reference.uid.as_deref() {
        None | Some("") => Reference::Reserved,
        uid if uid == meta.uid.as_deref() => Reference::Bound,
        _ => Reference::Other,
    })
}

/// The claim that a volume is bound to or reserved for.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn parsed(capacity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    let text = capacity.map(|quantity| quantity.0.as_str());
    text.and_then(|text| text.parse().ok())
        .unwrap_or(Quantity::from_units(0))
}

/// The size that a claim asks for.
pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    parsed(requests.and_then(|requests| requests.get("storage")))
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    parsed(capacity.and_then(|capacity| capacity.get("storage")))
}

/// The class that a claim asks for: `Some("")` for none on purpose, `None` when it leaves it
/// to the default.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotated = claim.metadata.annotations.as_ref();
    let annotated = annotated.and_then(|all| all.get(CLASS_ANNOTATION));
    let field = || claim.spec.as_ref()?.storage_class_name.as_ref();
    annotated.or_else(field).map(String::as_str)
}

/// The class that a volume has, `""` for none.
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let annotated = volume.metadata.annotations.as_ref();
    let annotated = annotated.and_then(|all| all.get(CLASS_ANNOTATION));
    let field = || volume.spec.as_ref()?.storage_class_name.as_ref();
    annotated.or_else(field).map_or("", String::as_str)
}

/// Why a volume that was named for a claim cannot serve it, in upstream's words.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < request(claim) {
        return Some("requested PV is too small");
    }
    if volume_class(volume) != claim_class(claim).unwrap_or_default() {
        return Some("storageClassName does not match");
    }
    if !same_mode(volume, claim) {
        return Some("incompatible volumeMode");
    }
    if !has_access_modes(volume, claim) {
        return Some("incompatible accessMode");
    }
    None
}

fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_deref());
    let of_claim = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_deref());
    of_volume.unwrap_or(FILESYSTEM) == of_claim.unwrap_or(FILESYSTEM)
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_deref());
    let offered = offered.unwrap_or_default();
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_deref());
    wanted
        .unwrap_or_default()
        .iter()
        .all(|mode| offered.contains(mode))
}

fn selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map_or(Ok(Selector::everything()), Selector::from_label_selector);
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    // Validation refuses a selector that cannot be read; until it is mended it selects nothing.
    selector.unwrap_or(Selector::nothing()).matches(&labels)
}

/// Whether a volume can be used on a node.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return true;
    };
    required
        .node_selector_terms
        .iter()
        .any(|term| term_matches(term, node))
}

pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let selector = |requirements: &Option<Vec<NodeSelectorRequirement>>| {
        let all = requirements.iter().flatten().map(|part| {
            Requirement::of(
                &part.key,
                &part.operator,
                part.values.as_deref().unwrap_or_default(),
            )
        });
        all.collect::<Result<Vec<_>, _>>()
            .map_or(Selector::nothing(), Selector::all)
    };
    let (labels, fields) = (
        selector(&term.match_expressions),
        selector(&term.match_fields),
    );
    let name = node.metadata.name.as_deref();
    let is_empty = labels.is_everything() && fields.is_everything();
    !is_empty
        && labels.matches(&node.metadata.labels.clone().unwrap_or_default())
        && fields.matches_with(|field| name.filter(|_| field == "metadata.name"))
}

/// The volume to bind a claim to: one that is bound to it or reserved for it, else, if `free`
/// ones may be taken, the smallest that fits. With a node, only volumes that can be used there.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    node: Option<&Node>,
    free: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let usable = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none() && same_mode(volume, claim)
    };
    let named = volumes.iter().filter(usable).find(|volume| {
        let named = reference(volume, claim);
        let ours = matches!(named, Some(Reference::Bound | Reference::Reserved));
        ours && capacity(volume) >= request(claim)
    });
    let fits = |volume: &&Arc<PersistentVolume>| {
        let phase = volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        claim_ref(volume).is_none()
            && phase == Some("Available")
            && selected(volume, claim)
            && node.is_none_or(|node| reaches(volume, node))
            && mismatch(volume, claim).is_none()
    };
    let smallest = || {
        let fitting = volumes.iter().filter(|_| free).filter(usable).filter(fits);
        fitting.min_by_key(|volume| {
            let modes = volume
                .spec
                .as_ref()
                .and_then(|spec| spec.access_modes.as_ref());
            // Of equal size the one that offers least beyond what is asked.
            (
                capacity(volume),
                modes.map_or(0, Vec::len),
                volume.metadata.name.clone(),
            )
        })
    };
    named.or_else(smallest)
}
