//! What a new volume is filled from: another claim's volume, or a snapshot. The checks are
//! [`of_claim`] and [`of_snapshot`], pure.

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, TypedLocalObjectReference,
};
use peapod_csi::v1::VolumeContentSource;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};

use crate::common::Key;
use crate::csi::abilities::Abilities;
use crate::csi::snapshot::kinds::{GROUP, VolumeSnapshot, VolumeSnapshotContent};
use crate::shell::{Context, Result, write};
use crate::volume::matching;

/// What a claim's volume is to be filled from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Nothing: it is new.
    Empty,
    /// This.
    Of(VolumeContentSource),
    /// Somebody else fills it (a volume populator).
    Foreign,
}

const NO_CLAIM: &str = "claim in dataSource not bound or invalid";

/// Looks up what a claim names as its source; the inner error is for the claim's author.
pub async fn find(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    driver: &str,
    abilities: &Abilities,
) -> Result<Result<Source, String>> {
    let Some(source) = named(claim) else {
        return Ok(Ok(Source::Empty));
    };
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let key = Key::new(namespace, &source.name);
    match (
        source.api_group.as_deref().unwrap_or_default(),
        source.kind.as_str(),
    ) {
        ("", "PersistentVolumeClaim") => {
            if !abilities.can(Call::CloneVolume) {
                return Ok(Err("CSI driver does not support clone operations: controller CLONE_VOLUME capability is not reported".to_owned()));
            }
            let informers = &ctx.informers;
            let from = informers.claims.get(&key);
            let name = from
                .as_ref()
                .and_then(|from| from.spec.as_ref()?.volume_name.clone());
            let volume = name.and_then(|name| informers.volumes.get(&Key::cluster(name)));
            Ok(of_claim(claim, from.as_deref(), volume.as_deref(), driver).map(Source::Of))
        }
        (GROUP, "VolumeSnapshot") => {
            if !abilities.can(Call::CreateDeleteSnapshot) {
                return Ok(Err("CSI driver does not support snapshot restore: controller CREATE_DELETE_SNAPSHOT capability is not reported".to_owned()));
            }
            let snapshot = write::get::<VolumeSnapshot>(ctx, &key).await?;
            let bound = snapshot.as_ref().and_then(content_name).map(Key::cluster);
            let content = match bound {
                Some(content) => write::get::<VolumeSnapshotContent>(ctx, &content).await?,
                None => None,
            };
            let source = of_snapshot(claim, snapshot.as_ref(), content.as_ref(), driver);
            Ok(source.map(Source::Of))
        }
        _ => Ok(Ok(Source::Foreign)),
    }
}

/// The source that a claim names, by either field.
fn named(claim: &PersistentVolumeClaim) -> Option<TypedLocalObjectReference> {
    let spec = claim.spec.as_ref()?;
    let other = spec
        .data_source_ref
        .as_ref()
        .map(|other| TypedLocalObjectReference {
            api_group: other.api_group.clone(),
            kind: other.kind.clone(),
            name: other.name.clone(),
        });
    spec.data_source.clone().or(other)
}

fn content_name(snapshot: &VolumeSnapshot) -> Option<&String> {
    snapshot
        .status
        .as_ref()?
        .bound_volume_snapshot_content_name
        .as_ref()
}

fn mode(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

/// A claim as the source of another.
fn of_claim(
    claim: &PersistentVolumeClaim,
    from: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
    driver: &str,
) -> Result<VolumeContentSource, String> {
    let Some(from) = from else {
        return Err("the PVC DataSource is not there".to_owned());
    };
    let name = from.metadata.name.as_deref().unwrap_or_default();
    let phase = from
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") {
        return Err(format!(
            "the PVC DataSource {name} must have a status of Bound.  Got {}",
            phase.unwrap_or("none")
        ));
    }
    if from.metadata.deletion_timestamp.is_some() {
        return Err(format!(
            "the PVC DataSource {name} is currently being deleted"
        ));
    }
    let (asked, has) = (
        matching::request(claim).units(),
        matching::request(from).units(),
    );
    if asked < has {
        return Err(format!(
            "error, new PVC request must be greater than or equal in size to the specified PVC data source, requested {asked} but source is {has}"
        ));
    }
    let spec = volume.and_then(|volume| volume.spec.as_ref());
    let source = spec.and_then(|spec| spec.csi.as_ref());
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref());
    let ours = reference.is_some_and(|reference| reference.uid == from.metadata.uid);
    let source = source.filter(|source| ours && source.driver == driver);
    let Some(source) = source else {
        return Err(NO_CLAIM.to_owned());
    };
    let of_volume = mode(spec.and_then(|spec| spec.volume_mode.as_deref()));
    let of_claim = mode(
        claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_mode.as_deref()),
    );
    if of_volume != of_claim {
        return Err(format!(
            "the source PVC and destination PVCs must have the same volume mode for cloning.  Source is {of_volume}, but new PVC requested {of_claim}"
        ));
    }
    Ok(VolumeContentSource {
        r#type: Some(Type::Volume(VolumeSource {
            volume_id: source.volume_handle.clone(),
        })),
    })
}

/// A snapshot as the source of a claim.
fn of_snapshot(
    claim: &PersistentVolumeClaim,
    snapshot: Option<&VolumeSnapshot>,
    content: Option<&VolumeSnapshotContent>,
    driver: &str,
) -> Result<VolumeContentSource, String> {
    let Some(snapshot) = snapshot else {
        return Err("the VolumeSnapshot of the dataSource is not there".to_owned());
    };
    let name = snapshot.metadata.name.as_deref().unwrap_or_default();
    if snapshot.metadata.deletion_timestamp.is_some() {
        return Err(format!("snapshot {name} is currently being deleted"));
    }
    let bound = content.filter(|content| {
        content.spec.volume_snapshot_ref.uid == snapshot.metadata.uid
            && content.spec.driver == driver
    });
    let Some(content) = bound else {
        return Err(format!("snapshot {name} not bound"));
    };
    let status = snapshot.status.clone().unwrap_or_default();
    if status.ready_to_use != Some(true) {
        return Err(format!("snapshot {name} is not Ready"));
    }
    let handle = content
        .status
        .as_ref()
        .and_then(|status| status.snapshot_handle.clone());
    let Some(snapshot_id) = handle else {
        return Err(format!("snapshot handle {name} is not available"));
    };
    let least = status
        .restore_size
        .as_ref()
        .and_then(|size| size.0.parse().ok());
    let least = least.map_or(0, peapod_api::quantity::Quantity::units);
    let asked = matching::request(claim).units();
    if asked < least {
        return Err(format!(
            "requested volume size {asked} is less than the size {least} for the source snapshot {name}"
        ));
    }
    let of_claim = mode(
        claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_mode.as_deref()),
    );
    let taken = content.spec.source_volume_mode.as_deref();
    let allowed = content.metadata.annotations.as_ref().is_some_and(|all| {
        let key = "snapshot.storage.kubernetes.io/allow-volume-mode-change";
        all.get(key).is_some_and(|value| value == "true")
    });
    if taken.is_some_and(|taken| taken != of_claim) && !allowed {
        return Err(format!(
            "requested volume {name} modifies the mode of the source volume but does not have permission to do so. snapshot.storage.kubernetes.io/allow-volume-mode-change annotation is not present on snapshotcontent {}",
            content.metadata.name.as_deref().unwrap_or_default()
        ));
    }
    Ok(VolumeContentSource {
        r#type: Some(Type::Snapshot(SnapshotSource { snapshot_id })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn claim(size: &str) -> PersistentVolumeClaim {
        let spec = json!({"resources": {"requests": {"storage": size}}});
        object(json!({"metadata": {"name": "new", "uid": "new"}, "spec": spec}))
    }

    #[test]
    fn a_clone_is_of_a_bound_claim_of_the_same_driver_and_no_larger() {
        let mut from = claim("2Gi");
        from.metadata.uid = Some("old".into());
        let source = json!({"driver": "d", "volumeHandle": "vol-7"});
        let spec = json!({"csi": source, "claimRef": {"uid": "old"}});
        let volume: PersistentVolume = object(json!({"metadata": {}, "spec": spec}));
        let ask = |from: &PersistentVolumeClaim, size, driver| {
            of_claim(&claim(size), Some(from), Some(&volume), driver)
        };
        assert!(ask(&from, "2Gi", "d").unwrap_err().contains("Bound"));
        from.status = object(json!({"phase": "Bound"}));
        assert!(ask(&from, "1Gi", "d").unwrap_err().contains("greater"));
        assert_eq!(ask(&from, "2Gi", "other").unwrap_err(), NO_CLAIM);
        let found = ask(&from, "2Gi", "d").unwrap();
        assert!(
            matches!(found.r#type, Some(Type::Volume(VolumeSource { volume_id })) if volume_id == "vol-7")
        );
    }

    #[test]
    fn a_restore_is_of_a_ready_snapshot_of_the_same_driver() {
        let status = json!({"readyToUse": true, "restoreSize": "1Gi", "boundVolumeSnapshotContentName": "c"});
        let snapshot: VolumeSnapshot =
            object(json!({"metadata": {"name": "s", "uid": "s"}, "spec": {}, "status": status}));
        let spec = json!({"driver": "d", "deletionPolicy": "Delete", "source": {}, "volumeSnapshotRef": {"uid": "s"}, "sourceVolumeMode": "Filesystem"});
        let content: VolumeSnapshotContent = object(
            json!({"metadata": {"name": "c"}, "spec": spec, "status": {"snapshotHandle": "snap-1"}}),
        );
        let ask = |size, driver| of_snapshot(&claim(size), Some(&snapshot), Some(&content), driver);
        assert!(ask("1Gi", "d").is_ok());
        assert!(ask("500Mi", "d").unwrap_err().contains("less than"));
        assert!(ask("1Gi", "e").unwrap_err().contains("not bound"));
        let mut block = claim("1Gi");
        block.spec.as_mut().unwrap().volume_mode = Some("Block".into());
        let changed = of_snapshot(&block, Some(&snapshot), Some(&content), "d");
        assert!(changed.unwrap_err().contains("mode"));
    }
}
