//! The node's part in the built-in class of node-local volumes, `peapod.dev/local`.
//!
//! The controllers make a PersistentVolume of type `local` whose path lies below the node's
//! folder for them, pinned to one node by its node affinity and held by the finalizer
//! [`FINALIZER`]. The node makes the directory when the first pod uses it. When the volume is
//! being deleted (reclaim policy Delete) the node removes the directory, and then the finalizer:
//! so data goes before the object, and never without it.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::PersistentVolume;
use peapod_api::k8s_openapi;

/// The provisioner's name.
pub const PROVISIONER: &str = "peapod.dev/local";
/// Holds a volume until the node has removed its data.
pub const FINALIZER: &str = "peapod.dev/local-volume";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Whether a volume is of the built-in class.
pub fn is_ours(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    let by = annotations.and_then(|all| all.get(PROVISIONED_BY));
    by.is_some_and(|by| by == PROVISIONER) || holds_finalizer(volume)
}

fn holds_finalizer(volume: &PersistentVolume) -> bool {
    volume
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

/// Whether a volume's affinity pins it to this node.
fn is_on(volume: &PersistentVolume, node: &str) -> bool {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity
        .and_then(|a| a.required.as_ref())
        .map(|r| r.node_selector_terms.as_slice());
    let mut expressions = terms.unwrap_or_default().iter().flat_map(|term| {
        term.match_expressions
            .iter()
            .chain(&term.match_fields)
            .flatten()
    });
    expressions.any(|expression| {
        expression.operator == "In"
            && expression
                .values
                .iter()
                .flatten()
                .any(|value| value == node)
    })
}

/// The finalizers that a volume keeps once its data is removed, and the directory to remove;
/// `None` if this node has nothing to do.
pub fn to_remove<'a>(volume: &'a PersistentVolume, node: &str) -> Option<(&'a Path, Vec<String>)> {
    let deleted = volume.metadata.deletion_timestamp.is_some();
    if !deleted || !holds_finalizer(volume) || !is_on(volume, node) {
        return None;
    }
    let spec = volume.spec.as_ref()?;
    let path = spec.local.as_ref().map(|local| local.path.as_str());
    let path = path.or(spec.host_path.as_ref().map(|host| host.path.as_str()))?;
    let kept = volume.metadata.finalizers.iter().flatten();
    Some((
        Path::new(path),
        kept.filter(|f| *f != FINALIZER).cloned().collect(),
    ))
}

/// Removes a volume's directory, which must lie below the folder for such volumes.
pub fn remove(folder: &Path, path: &Path) -> std::io::Result<()> {
    let plain = path
        .components()
        .all(|part| !matches!(part, Component::ParentDir));
    if !plain || path == folder || !path.starts_with(folder) {
        return Err(std::io::Error::other(format!(
            "{} is not below {}: remove it by hand, and the finalizer {FINALIZER}",
            path.display(),
            folder.display()
        )));
    }
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(node: &str, deleted: bool) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "pv", "finalizers": ["a/b", FINALIZER],
                "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"local": {"path": "/data/local/pv"}, "nodeAffinity": {"required":
                {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_deleted_and_here() {
        let expected = (Path::new("/data/local/pv"), vec!["a/b".to_owned()]);
        assert_eq!(to_remove(&volume("n1", true), "n1"), Some(expected));
        assert_eq!(to_remove(&volume("n1", false), "n1"), None);
        assert_eq!(to_remove(&volume("n2", true), "n1"), None);
    }

    #[test]
    fn nothing_outside_of_the_folder_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("local");
        std::fs::create_dir_all(folder.join("pv")).unwrap();
        assert!(remove(&folder, &folder).is_err());
        assert!(remove(&folder, dir.path()).is_err());
        assert!(remove(&folder, &folder.join("../local")).is_err());
        remove(&folder, &folder.join("pv")).unwrap();
        remove(&folder, &folder.join("pv")).unwrap();
        assert!(!folder.join("pv").exists());
    }
}
