//! Which nodes a volume is attached to and which it should be: what to do about it. Pure.
//!
//! Follows upstream's attach-detach controller:
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/>,
//! <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#storage-force-detach-on-timeout>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use peapod_api::conditions;
use sha2::{Digest, Sha256};

use crate::common::pods;

/// The taint by which an operator says that a node is off for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A node that does not answer loses its volumes after this, whether it let go or not.
pub const FORCE_AFTER: Duration = Duration::from_secs(360);

/// A node, as far as volumes are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether the node says that it has the volume mounted, or is about to.
    pub in_use: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is out of service.
    pub out: bool,
}

/// What there is to see of one volume.
pub struct Observed<'a> {
    /// Whether several nodes may have it.
    pub shared: bool,
    /// The pods that use it, by node.
    pub wanted: BTreeMap<String, Vec<String>>,
    /// Its attachments.
    pub attachments: &'a [Arc<VolumeAttachment>],
    /// Nodes that are there.
    pub places: BTreeMap<String, Place>,
    /// For how long each node's attachment has not been wanted.
    pub idle: BTreeMap<String, Duration>,
}

/// What to do about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Attach it there.
    Attach(String),
    /// Detach it there: delete the attachment.
    Detach(String),
    /// Attach it there once others let go of it; these nodes have it.
    Blocked {
        /// Where it is wanted.
        node: String,
        /// Where it is.
        held_by: Vec<String>,
    },
    /// Detach it there when the node lets go, or at the latest after this.
    Wait(String, Option<Duration>),
}

/// Decides about a volume; nodes in order.
pub fn actions(observed: &Observed<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut held: Vec<&str> = Vec::new();
    for attachment in observed.attachments {
        let node = attachment.spec.node_name.as_str();
        held.push(node);
        let deleting = attachment.metadata.deletion_timestamp.is_some();
        if !deleting && !observed.wanted.contains_key(node) {
            actions.push(detach(observed, node));
        }
    }
    held.sort_unstable();
    let missing = observed
        .wanted
        .keys()
        .filter(|node| !held.contains(&node.as_str()));
    for node in missing.collect::<Vec<_>>() {
        // Of several that want it one gets it; the others see it held then.
        if observed.shared || held.is_empty() {
            if observed.places.contains_key(node) {
                actions.push(Action::Attach(node.clone()));
                held.push(node);
            }
        } else {
            actions.push(Action::Blocked {
                node: node.clone(),
                held_by: held.iter().map(|&node| node.to_owned()).collect(),
            });
        }
    }
    actions
}

fn detach(observed: &Observed<'_>, node: &str) -> Action {
    let Some(place) = observed.places.get(node) else {
        return Action::Detach(node.to_owned());
    };
    if !place.in_use || place.out {
        return Action::Detach(node.to_owned());
    }
    if place.ready {
        return Action::Wait(node.to_owned(), None);
    }
    let idle = observed.idle.get(node).copied().unwrap_or_default();
    match FORCE_AFTER.checked_sub(idle).filter(|left| !left.is_zero()) {
        Some(left) => Action::Wait(node.to_owned(), Some(left)),
        None => Action::Detach(node.to_owned()),
    }
}

// === impl Place ===

impl Place {
    /// What a node says of a volume.
    pub fn of(node: &Node, volume: &str) -> Self {
        let status = node.status.as_ref();
        let in_use = status.and_then(|status| status.volumes_in_use.as_ref());
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref());
        Self {
            in_use: in_use.is_some_and(|all| all.iter().any(|one| one == volume)),
            ready: conditions::is_true(conditions.unwrap_or_default(), "Ready"),
            out: taints.is_some_and(|all| all.iter().any(|taint| taint.key == OUT_OF_SERVICE)),
        }
    }
}

/// A volume's name in `node.status.volumesInUse` and `volumesAttached`.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The name of a volume's attachment to a node, as upstream's kubelet expects it.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{handle}{driver}{node}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{hex}")
}

/// Whether an attachment was made here, by its name. Others are their makers' to remove.
pub fn is_own(attachment: &VolumeAttachment) -> bool {
    let name = attachment.metadata.name.as_deref().unwrap_or_default();
    let digest = name.strip_prefix("csi-").unwrap_or_default();
    digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether several nodes may have a volume.
pub fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_ref());
    let mut modes = modes.into_iter().flatten();
    modes.any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

/// Whether a pod keeps the volumes of its node: it is neither finished, nor being deleted with no
/// container running.
pub fn keeps_volumes(pod: &Pod) -> bool {
    if pods::node_name(pod).is_empty() || pods::is_finished(pod) {
        return false;
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let mut ended = statuses.into_iter().flatten().map(|one| {
        let state = one.state.as_ref();
        state.is_none_or(|state| state.terminated.is_some() || state.waiting.is_some())
    });
    // A pod that has told nothing of its containers may be starting them.
    let quiet = statuses.is_some_and(|all| !all.is_empty()) && ended.all(|ended| ended);
    !(pods::is_terminating(pod) && quiet)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::common::testing::{golden, objects};

    /// A volume, nodes, pods and attachments; what is to be done. A line `# idle NODE SECONDS`
    /// says for how long a node's attachment has not been wanted.
    fn run(input: &str) -> String {
        let volume: PersistentVolume = objects(input, "PersistentVolume").remove(0);
        let name = unique_name("d", "vol-1");
        let nodes: Vec<Node> = objects(input, "Node");
        let attachments: Vec<VolumeAttachment> = objects(input, "VolumeAttachment");
        let attachments: Vec<_> = attachments.into_iter().map(Arc::new).collect();
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in objects::<Pod>(input, "Pod")
            .iter()
            .filter(|pod| keeps_volumes(pod))
        {
            let users = wanted.entry(pods::node_name(pod).to_owned()).or_default();
            users.push(pod.metadata.name.clone().unwrap());
        }
        let idle = input.lines().filter_map(|line| {
            let (node, seconds) = line.strip_prefix("# idle ")?.split_once(' ')?;
            Some((
                node.to_owned(),
                Duration::from_secs(seconds.parse().unwrap()),
            ))
        });
        let places = nodes
            .iter()
            .map(|node| (node.metadata.name.clone().unwrap(), Place::of(node, &name)));
        let actions = actions(&Observed {
            shared: is_shared(&volume),
            wanted,
            attachments: &attachments,
            places: places.collect(),
            idle: idle.collect(),
        });
        let actions = actions.iter().map(|action| format!("{action:?}"));
        actions.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("csi_attach", run);
    }

    #[test]
    fn names_are_upstreams() {
        assert_eq!(unique_name("d", "v"), "kubernetes.io/csi/d^v");
        let name = attachment_name("hostpath.csi.k8s.io", "vol", "node-1");
        assert_eq!(name.len(), 4 + 64);
        let digest = Sha256::digest(b"volhostpath.csi.k8s.ionode-1");
        assert!(name.ends_with(&format!("{:02x}", digest[31])));
        let named = |name: &str| VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..VolumeAttachment::default()
        };
        assert!(is_own(&named(&name)));
        assert!(!is_own(&named("csi-by-hand")));
        assert!(!is_own(&named("va-1")));
    }
}
