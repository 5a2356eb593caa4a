//! Limits that a pod declares on local storage, and whether it keeps to them. Pure.
//!
//! As upstream's local storage eviction: a volume's `sizeLimit`, a container's limit (its
//! writable layer and its logs), and the sum of all for the pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

use crate::runtime::DiskUsage;

/// The resource's name.
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What a pod has on the node's disk.
#[derive(Clone, Debug, Default)]
pub struct LocalUsage {
    /// By volume: the `emptyDir`s that are on the disk.
    pub volumes: BTreeMap<String, DiskUsage>,
    /// By container: its writable layer and its logs.
    pub containers: BTreeMap<String, DiskUsage>,
}

impl LocalUsage {
    /// All of it.
    pub fn total(&self) -> DiskUsage {
        let all = self.volumes.values().chain(self.containers.values());
        all.copied().sum()
    }
}

/// Whether there is anything to keep to.
pub fn has_any(spec: &PodSpec) -> bool {
    let sized = on_disk(spec).any(|(_, dir)| dir.size_limit.is_some());
    sized || containers(spec).any(|(_, limit)| limit.is_some()) || of_pod(spec).is_some()
}

/// The volumes that count: every `emptyDir` that is not in memory.
pub fn disk_volumes(spec: &PodSpec) -> Vec<&str> {
    on_disk(spec).map(|(name, _)| name).collect()
}

fn on_disk(spec: &PodSpec) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    let dirs = spec.volumes.iter().flatten().filter_map(|volume| {
        let dir = volume.empty_dir.as_ref()?;
        Some((volume.name.as_str(), dir))
    });
    dirs.filter(|(_, dir)| dir.medium.as_deref().unwrap_or_default().is_empty())
}

/// Containers that run on, each with its limit as it is written.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (&str, Option<&Text>)> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers).map(|container| {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let limit = limits.and_then(|limits| limits.get(EPHEMERAL_STORAGE));
        (container.name.as_str(), limit)
    })
}

/// The pod's limit: the sum of its containers', if each has one; or the largest of an init
/// container's.
fn of_pod(spec: &PodSpec) -> Option<Quantity> {
    let limit = |container: &k8s_openapi::api::core::v1::Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get(EPHEMERAL_STORAGE).and_then(bytes)
    };
    let mut sum = None::<Quantity>;
    for container in &spec.containers {
        let limit = limit(container)?;
        sum = Some(sum.map_or(limit, |sum| sum.plus(limit)));
    }
    let init = spec.init_containers.iter().flatten().filter_map(limit);
    init.chain(sum).max().filter(|_| sum.is_some())
}

fn bytes(text: &Text) -> Option<Quantity> {
    Quantity::try_from(text)
        .ok()
        .filter(|limit| !limit.is_zero())
}

fn exceeds(used: u64, limit: Quantity) -> bool {
    used > u64::try_from(limit.units()).unwrap_or(0)
}

/// The sentence on the first limit that is exceeded, in upstream's words.
pub fn violation(spec: &PodSpec, usage: &LocalUsage) -> Option<String> {
    let used = |of: &BTreeMap<String, DiskUsage>, name: &str| of.get(name).map_or(0, |u| u.bytes);
    for (name, dir) in on_disk(spec) {
        let Some(text) = &dir.size_limit else {
            continue;
        };
        if bytes(text).is_some_and(|limit| exceeds(used(&usage.volumes, name), limit)) {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ",
                text.0
            ));
        }
    }
    if let Some(limit) = of_pod(spec).filter(|&limit| exceeds(usage.total().bytes, limit)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            limit.to_text().0
        ));
    }
    for (name, limit) in containers(spec) {
        let Some(text) = limit else { continue };
        if bytes(text).is_some_and(|limit| exceeds(used(&usage.containers, name), limit)) {
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{}\". ",
                text.0
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limited(limits: [Option<&str>; 2], volume: Option<&str>) -> PodSpec {
        let container = |name: &str, limit: Option<&str>| {
            let limits = limit.map(|limit| json!({EPHEMERAL_STORAGE: limit}));
            json!({"name": name, "resources": {"limits": limits}})
        };
        let spec = json!({
            "containers": [container("a", limits[0]), container("b", limits[1])],
            "volumes": [
                {"name": "v", "emptyDir": {"sizeLimit": volume}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        });
        serde_json::from_value(spec).unwrap()
    }

    fn usage(a: u64, b: u64, v: u64) -> LocalUsage {
        let map = |pairs: &[(&str, u64)]| {
            let usage = |bytes| DiskUsage { bytes, inodes: 1 };
            let owned = pairs
                .iter()
                .map(|&(name, bytes)| (name.to_owned(), usage(bytes)));
            owned.collect()
        };
        LocalUsage {
            volumes: map(&[("v", v)]),
            containers: map(&[("a", a), ("b", b)]),
        }
    }

    #[test]
    fn each_limit_has_its_sentence() {
        const MI: u64 = 1 << 20;
        let volume = limited([None, None], Some("1Mi"));
        assert_eq!(violation(&volume, &usage(9 * MI, 0, MI)), None);
        assert_eq!(
            violation(&volume, &usage(0, 0, MI + 1)).unwrap(),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
        );
        let one = limited([Some("2Mi"), None], None);
        assert_eq!(violation(&one, &usage(2 * MI, 9 * MI, 9 * MI)), None);
        assert_eq!(
            violation(&one, &usage(2 * MI + 1, 0, 0)).unwrap(),
            "Container a exceeded its local ephemeral storage limit \"2Mi\". "
        );
        let both = limited([Some("2Mi"), Some("2Mi")], None);
        assert_eq!(violation(&both, &usage(2 * MI, MI, MI)), None);
        assert_eq!(
            violation(&both, &usage(MI, MI, 3 * MI)).unwrap(),
            "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "
        );
    }

    #[test]
    fn what_declares_nothing_is_not_looked_at() {
        assert!(!has_any(&limited([None, None], None)));
        assert!(has_any(&limited([None, None], Some("1Gi"))));
        assert!(has_any(&limited([Some("1Gi"), None], None)));
        assert_eq!(disk_volumes(&limited([None, None], None)), ["v"]);
    }
}
