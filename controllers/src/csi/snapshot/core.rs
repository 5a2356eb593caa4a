//! What a VolumeSnapshot and a VolumeSnapshotContent need. Pure.
//!
//! A snapshot has one content, which a driver's snapshot stands behind: made for it (named after
//! its uid), or there before it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use peapod_csi::v1::CreateSnapshotRequest;

use super::kinds::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, VolumeSnapshotContentSource,
    VolumeSnapshotContentSpec, VolumeSnapshotError, VolumeSnapshotStatus,
};
use crate::csi::parameters::{self, Names, Secrets};
use crate::csi::provision::core::{bytes, is_held};
use crate::shell::events;

/// Finalizers of a snapshot: its content, and volumes that are made from it.
pub const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// See [`BOUND`].
pub const AS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// Finalizer of a content: the driver's snapshot.
pub const CONTENT: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// Finalizer of a claim: a snapshot of it is being taken.
pub const CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// Annotation of a content: the driver may be taking its snapshot.
pub const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// Annotation of a content: its VolumeSnapshot goes.
pub const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// Annotations of a content: where the secret of its deletion is.
pub const DELETION_SECRET: [&str; 2] = [
    "snapshot.storage.kubernetes.io/deletion-secret-name",
    "snapshot.storage.kubernetes.io/deletion-secret-namespace",
];
/// Annotation of a class: it is its driver's default.
const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// What a snapshot needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Its finalizers.
    Protect,
    /// A content, made for it.
    Make,
    /// The content that it names, bound to it.
    Bind,
    /// A status that shows its content's.
    Show,
    /// A status that tells what is wrong.
    Fail(String),
    /// Its content deleted first.
    DeleteContent,
    /// To be let go.
    Free,
}

/// What a content needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentStep {
    /// Nothing.
    Nothing,
    /// Its finalizer.
    Protect,
    /// The driver to take a snapshot, or to say whether it is ready.
    Take,
    /// A status of what is there already.
    Adopt,
    /// The driver to delete the snapshot, and then to be let go.
    Delete,
    /// To be let go: the snapshot stays.
    Free,
}

fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}

/// The name of the content made for a snapshot.
pub fn content_name(snapshot: &VolumeSnapshot) -> String {
    match &snapshot.spec.source.volume_snapshot_content_name {
        Some(name) => name.clone(),
        None => format!("snapcontent-{}", text(snapshot.metadata.uid.as_ref())),
    }
}

/// Whether a content is of a snapshot; of one of that name, when it says no more.
fn is_of(content: &VolumeSnapshotContent, snapshot: &VolumeSnapshot) -> Option<bool> {
    let reference = &content.spec.volume_snapshot_ref;
    let meta = &snapshot.metadata;
    if (&reference.namespace, &reference.name) != (&meta.namespace, &meta.name) {
        return None;
    }
    match text(reference.uid.as_ref()) {
        "" => Some(false),
        uid => (Some(uid) == meta.uid.as_deref()).then_some(true),
    }
}

/// Decides about a snapshot; `used`: a volume is being made from it.
pub fn step(
    snapshot: &VolumeSnapshot,
    content: Option<&VolumeSnapshotContent>,
    used: bool,
) -> Step {
    let held = |finalizer| is_held(&snapshot.metadata, finalizer);
    let bound = content.and_then(|content| is_of(content, snapshot));
    if snapshot.metadata.deletion_timestamp.is_some() {
        if !held(BOUND) && !held(AS_SOURCE) || used {
            return Step::Nothing;
        }
        let delete = content.is_some_and(|content| content.spec.deletion_policy == "Delete");
        return match bound {
            Some(true) if delete => Step::DeleteContent,
            _ => Step::Free,
        };
    }
    if !held(BOUND) || !held(AS_SOURCE) {
        return Step::Protect;
    }
    let named = snapshot.spec.source.volume_snapshot_content_name.as_deref();
    match (named, content, bound) {
        (_, Some(_), Some(true)) => Step::Show,
        (Some(_), Some(_), Some(false)) => Step::Bind,
        (Some(_), Some(_), None) => {
            Step::Fail("VolumeSnapshotContent is bound to a different snapshot".to_owned())
        }
        (Some(_), None, _) => Step::Fail("VolumeSnapshotContent is missing".to_owned()),
        (None, None, _) => match snapshot
            .status
            .as_ref()
            .and_then(|status| status.ready_to_use)
        {
            // It was there: to take another now would be another snapshot.
            Some(true) => Step::Fail("VolumeSnapshotContent is missing".to_owned()),
            _ => Step::Make,
        },
        (None, Some(_), _) => Step::Fail(
            "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly".to_owned(),
        ),
    }
}

/// Decides about a content; `snapshot`: the one that it is for, as far as it is there.
pub fn content_step(
    content: &VolumeSnapshotContent,
    snapshot: Option<&VolumeSnapshot>,
) -> ContentStep {
    let held = is_held(&content.metadata, CONTENT);
    let status = content.status.clone().unwrap_or_default();
    if content.metadata.deletion_timestamp.is_some() {
        let keeps = snapshot.filter(|snapshot| is_of(content, snapshot) == Some(true));
        let keeps = keeps.is_some_and(|snapshot| snapshot.metadata.deletion_timestamp.is_none());
        return match content.spec.deletion_policy.as_str() {
            _ if !held || keeps => ContentStep::Nothing,
            "Delete" => ContentStep::Delete,
            _ => ContentStep::Free,
        };
    }
    // What nobody asks for is not taken.
    let ours = snapshot.is_none_or(|snapshot| snapshot.metadata.deletion_timestamp.is_none());
    match (&content.spec.source.snapshot_handle, status.ready_to_use) {
        _ if !held => ContentStep::Protect,
        (_, Some(true)) => ContentStep::Nothing,
        (Some(_), _) => ContentStep::Adopt,
        (None, _) if ours => ContentStep::Take,
        (None, _) => ContentStep::Nothing,
    }
}

/// The class of a snapshot: the one that it names, or its driver's default one.
pub fn class<'a>(
    snapshot: &VolumeSnapshot,
    driver: &str,
    classes: &'a [VolumeSnapshotClass],
) -> Result<&'a VolumeSnapshotClass, String> {
    if let Some(name) = &snapshot.spec.volume_snapshot_class_name {
        let found = classes
            .iter()
            .find(|class| class.metadata.name.as_ref() == Some(name));
        let found = found.ok_or_else(|| {
            format!("volumesnapshotclass.snapshot.storage.k8s.io \"{name}\" not found")
        })?;
        return match found.driver == driver {
            true => Ok(found),
            false => Err(format!(
                "VolumeSnapshotClass {name} is of driver {}, and the volume of {driver}",
                found.driver
            )),
        };
    }
    let is_default = |class: &&VolumeSnapshotClass| {
        let annotations = class.metadata.annotations.as_ref();
        class.driver == driver
            && annotations
                .is_some_and(|all| all.get(DEFAULT_CLASS).is_some_and(|value| value == "true"))
    };
    let mut defaults = classes.iter().filter(is_default);
    match (defaults.next(), defaults.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!(
            "cannot find default snapshot class for driver {driver}"
        )),
        (Some(_), Some(_)) => Err(format!(
            "more than one default snapshot class for driver {driver}"
        )),
    }
}

fn names<'a>(namespace: &'a str, name: &'a str, content: &'a str) -> Names<'a> {
    Names {
        volume: content,
        claim: (namespace, name),
        annotations: None,
    }
}

/// The content of a snapshot of a claim's volume.
pub fn content(
    snapshot: &VolumeSnapshot,
    claim: &PersistentVolumeClaim,
    volume: Option<&PersistentVolume>,
    classes: &[VolumeSnapshotClass],
) -> Result<VolumeSnapshotContent, String> {
    let claim_name = text(claim.metadata.name.as_ref());
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let spec = volume.and_then(|volume| volume.spec.as_ref());
    let Some(spec) = spec.filter(|_| phase == Some("Bound")) else {
        return Err(format!(
            "the PVC {claim_name} is not yet bound to a PV, will not attempt to take a snapshot"
        ));
    };
    let Some(source) = &spec.csi else {
        return Err(format!(
            "the volume of PVC {claim_name} is not a CSI driver's"
        ));
    };
    let class = class(snapshot, &source.driver, classes)?;
    let name = content_name(snapshot);
    let meta = &snapshot.metadata;
    let names = names(
        text(meta.namespace.as_ref()),
        text(meta.name.as_ref()),
        &name,
    );
    let parameters = class.parameters.clone().unwrap_or_default();
    let secret = Secrets::Snapshotter.of(&parameters, names)?;
    let annotations = secret.map(|secret| {
        let parts = [secret.name, secret.namespace].map(Option::unwrap_or_default);
        DELETION_SECRET
            .map(str::to_owned)
            .into_iter()
            .zip(parts)
            .collect()
    });
    Ok(VolumeSnapshotContent {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations,
            finalizers: Some(vec![CONTENT.to_owned()]),
            ..Default::default()
        },
        spec: VolumeSnapshotContentSpec {
            deletion_policy: class.deletion_policy.clone(),
            driver: source.driver.clone(),
            source: VolumeSnapshotContentSource {
                volume_handle: Some(source.volume_handle.clone()),
                snapshot_handle: None,
            },
            source_volume_mode: Some(
                spec.volume_mode
                    .clone()
                    .unwrap_or_else(|| "Filesystem".to_owned()),
            ),
            volume_snapshot_class_name: class.metadata.name.clone(),
            volume_snapshot_ref: events::reference(snapshot),
        },
        status: None,
    })
}

/// What the driver is asked to take, but for secrets.
pub fn request(
    content: &VolumeSnapshotContent,
    class: Option<&VolumeSnapshotClass>,
) -> Result<CreateSnapshotRequest, String> {
    let own = class
        .and_then(|class| class.parameters.clone())
        .unwrap_or_default();
    let mut parameters: HashMap<String, String> = parameters::for_driver(&own)?;
    let reference = &content.spec.volume_snapshot_ref;
    let content_name = text(content.metadata.name.as_ref());
    for (key, value) in [
        ("volumesnapshot/name", text(reference.name.as_ref())),
        (
            "volumesnapshot/namespace",
            text(reference.namespace.as_ref()),
        ),
        ("volumesnapshotcontent/name", content_name),
    ] {
        parameters.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    let Some(source_volume_id) = content.spec.source.volume_handle.clone() else {
        return Err("VolumeSnapshotContent names no volume".to_owned());
    };
    Ok(CreateSnapshotRequest {
        source_volume_id,
        name: format!("snapshot-{}", text(reference.uid.as_ref())),
        secrets: HashMap::new(),
        parameters,
    })
}

/// Where the secret of a content's snapshot is, by its class.
pub fn secret_of(
    content: &VolumeSnapshotContent,
    class: Option<&VolumeSnapshotClass>,
) -> Result<Option<k8s_openapi::api::core::v1::SecretReference>, String> {
    let parameters: BTreeMap<_, _> = class
        .and_then(|class| class.parameters.clone())
        .unwrap_or_default();
    let reference = &content.spec.volume_snapshot_ref;
    let names = names(
        text(reference.namespace.as_ref()),
        text(reference.name.as_ref()),
        text(content.metadata.name.as_ref()),
    );
    Secrets::Snapshotter.of(&parameters, names)
}

/// The status of a snapshot whose content is this.
pub fn status(content: &VolumeSnapshotContent) -> VolumeSnapshotStatus {
    let status = content.status.clone().unwrap_or_default();
    let taken = status
        .creation_time
        .and_then(|at| Timestamp::from_nanosecond(at.into()).ok());
    VolumeSnapshotStatus {
        bound_volume_snapshot_content_name: content.metadata.name.clone(),
        creation_time: taken.map(|at| Time(at.round(jiff::Unit::Second).unwrap_or(at))),
        ready_to_use: Some(status.ready_to_use.unwrap_or(false)),
        restore_size: status.restore_size.filter(|size| *size > 0).map(bytes),
        error: status.error,
    }
}

/// A fault of now; the old one if it says the same.
pub fn fault(
    old: Option<&VolumeSnapshotError>,
    message: &str,
    now: Timestamp,
) -> VolumeSnapshotError {
    match old.filter(|old| old.message.as_deref() == Some(message)) {
        Some(old) => old.clone(),
        None => VolumeSnapshotError {
            time: Some(Time(now)),
            message: Some(message.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};

    /// Snapshots and contents, claims, volumes and classes; what each needs.
    fn run(input: &str) -> String {
        let snapshots: Vec<VolumeSnapshot> = objects(input, "VolumeSnapshot");
        let contents: Vec<VolumeSnapshotContent> = objects(input, "VolumeSnapshotContent");
        let claims: Vec<PersistentVolumeClaim> = objects(input, "PersistentVolumeClaim");
        let volumes: Vec<PersistentVolume> = objects(input, "PersistentVolume");
        let classes: Vec<VolumeSnapshotClass> = objects(input, "VolumeSnapshotClass");
        let mut out = Vec::new();
        for snapshot in &snapshots {
            let name = content_name(snapshot);
            let content = contents
                .iter()
                .find(|content| content.metadata.name.as_ref() == Some(&name));
            let step = step(snapshot, content, false);
            out.push(format!(
                "{}: {step:?}",
                text(snapshot.metadata.name.as_ref())
            ));
            let of = snapshot.spec.source.persistent_volume_claim_name.as_ref();
            let claim = claims
                .iter()
                .find(|claim| claim.metadata.name.as_ref() == of);
            if let (Step::Make, Some(claim)) = (step, claim) {
                let volume = volumes.iter().find(|volume| {
                    volume.metadata.name
                        == claim
                            .spec
                            .as_ref()
                            .and_then(|spec| spec.volume_name.clone())
                });
                out.push(match super::content(snapshot, claim, volume, &classes) {
                    Err(fault) => format!("  {fault}"),
                    Ok(content) => format!("  {}", serde_json::to_string(&content).unwrap()),
                });
            }
        }
        for content in &contents {
            let reference = &content.spec.volume_snapshot_ref;
            let snapshot = snapshots
                .iter()
                .find(|one| one.metadata.name == reference.name);
            out.push(format!(
                "{}: {:?}",
                text(content.metadata.name.as_ref()),
                content_step(content, snapshot)
            ));
        }
        out.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("csi_snapshot", run);
    }

    #[test]
    fn a_snapshot_shows_what_its_content_is() {
        let content = serde_json::json!({
            "metadata": {"name": "c"},
            "spec": {"driver": "d", "deletionPolicy": "Delete", "source": {}, "volumeSnapshotRef": {}},
            "status": {"creationTime": 1_767_225_600_000_000_000_i64, "readyToUse": true, "restoreSize": 1 << 30},
        });
        let shown = status(&serde_json::from_value(content).unwrap());
        assert_eq!(shown.restore_size.unwrap().0, "1Gi");
        assert_eq!(
            shown.creation_time.unwrap().0.to_string(),
            "2026-01-01T00:00:00Z"
        );
        let now = Timestamp::UNIX_EPOCH;
        let first = fault(None, "no", now);
        assert_eq!(fault(Some(&first), "no", Timestamp::MAX), first);
        assert_ne!(fault(Some(&first), "never", now), first);
    }
}
