//! The node's part in the life of a volume of the built-in class `local`, which
//! [`peapod_api::storage`] tells as a whole: the node makes the directory when a pod first uses
//! it, and when the volume is being deleted removes first the directory, then the finalizer.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::PersistentVolume;
use peapod_api::k8s_openapi;
use peapod_api::storage::{FINALIZER, NODE, PROVISIONED_BY, PROVISIONER};

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

/// Whether a volume's directory is on this node.
fn is_on(volume: &PersistentVolume, node: &str) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(NODE))
        .is_some_and(|on| on == node)
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
                "annotations": {NODE: node},
                "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"local": {"path": "/data/local/pv"}},
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
