//! What the recorder must know of pods, nodes and BGP sessions, read out of their encoded objects.

use jiff::Timestamp;
use peapod_api::labels;
use peapod_api::net::PlacementLeaf;
use serde::Deserialize;

/// A pod, as far as its place goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its topmost owner, as `Deployment/web`, where it was looked up.
    pub workload: String,
    /// UID of its controller: tells pods of two templates of one workload apart.
    pub controller: String,
    /// Its node; empty before it has one.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// When it got its node.
    pub scheduled: Option<Timestamp>,
    /// How it is about to leave, or has left.
    pub end: Option<End>,
}

/// That a pod leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is being deleted, and why as far as its conditions tell.
    Deleting {
        /// Why.
        disruption: Disruption,
        /// Its containers have ended, perhaps long before.
        ended: bool,
    },
    /// It is done.
    Completed,
    /// It failed; whether the kubelet evicted it.
    Failed {
        /// The node was short of something.
        pressure: bool,
        /// Why it is disrupted.
        disruption: Disruption,
    },
}

/// The reason of a pod's `DisruptionTarget` condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disruption {
    /// It has none.
    #[default]
    None,
    /// The eviction API.
    Eviction,
    /// The scheduler, for a pod of a higher priority.
    Preemption,
    /// A taint.
    Taint,
    /// Its node is gone.
    Collected,
    /// The node.
    Kubelet,
}

/// A node, as far as the places on it go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its rack.
    pub rack: Option<String>,
    /// Changes when the machine restarts.
    pub boot: String,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Whether it is ready.
    pub ready: bool,
}

/// Who owns something: kind, name and UID of its controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// As `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    deletion_timestamp: Option<String>,
    owner_references: Vec<Reference>,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    kind: String,
    name: String,
    uid: String,
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    reason: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Address>,
    conditions: Vec<Condition>,
    node_info: NodeInfo,
    sessions: Vec<Session>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    last_transition_time: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Session {
    neighbor: Option<String>,
    interface: Option<String>,
    remote_hostname: Option<String>,
    remote_router_id: Option<String>,
    state: String,
}

// === impl PodFacts ===

impl PodFacts {
    /// Reads a pod. `owner_of` looks up who owns a ReplicaSet or a Job of the pod's namespace.
    pub fn read(
        pod: &[u8],
        owner_of: impl FnOnce(&str, &Owner) -> Option<Owner>,
    ) -> Result<Self, serde_json::Error> {
        let Object {
            metadata,
            spec,
            status,
        } = serde_json::from_slice(pod)?;
        let controller = controller(&metadata);
        let scheduled = status
            .conditions
            .iter()
            .find(|one| one.kind == "PodScheduled");
        let scheduled = scheduled.and_then(|one| one.last_transition_time.as_deref()?.parse().ok());
        let end = end(&metadata, &status);
        let workload = match &controller {
            None => format!("Pod/{}", metadata.name),
            Some(owner) => {
                let top = match owner.kind.as_str() {
                    "ReplicaSet" | "Job" => owner_of(&metadata.namespace, owner),
                    _ => None,
                };
                let top = top.as_ref().unwrap_or(owner);
                format!("{}/{}", top.kind, top.name)
            }
        };
        Ok(Self {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            workload,
            controller: controller.map(|owner| owner.uid).unwrap_or_default(),
            node: spec.node_name,
            addresses: status.pod_ips.into_iter().map(|one| one.ip).collect(),
            scheduled,
            end,
        })
    }
}

/// The controller of an encoded object.
pub fn owner(object: &[u8]) -> Option<Owner> {
    let object: Object = serde_json::from_slice(object).ok()?;
    controller(&object.metadata)
}

fn controller(metadata: &Meta) -> Option<Owner> {
    let found = metadata
        .owner_references
        .iter()
        .find(|one| one.controller)?;
    Some(Owner {
        kind: found.kind.clone(),
        name: found.name.clone(),
        uid: found.uid.clone(),
    })
}

fn end(metadata: &Meta, status: &Status) -> Option<End> {
    let target = status
        .conditions
        .iter()
        .find(|one| one.kind == "DisruptionTarget" && one.status == "True");
    let disruption = match target.map(|one| one.reason.as_str()) {
        Some("EvictionByEvictionAPI") => Disruption::Eviction,
        Some("PreemptionByScheduler") => Disruption::Preemption,
        Some("DeletionByTaintManager") => Disruption::Taint,
        Some("DeletionByPodGC") => Disruption::Collected,
        Some("TerminationByKubelet") => Disruption::Kubelet,
        _ => Disruption::None,
    };
    let ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    match status.phase.as_str() {
        // Its containers end because it is deleted, whatever their exit codes.
        _ if metadata.deletion_timestamp.is_some() => Some(End::Deleting { disruption, ended }),
        "Succeeded" => Some(End::Completed),
        "Failed" => Some(End::Failed {
            pressure: status.reason == "Evicted" || disruption == Disruption::Kubelet,
            disruption,
        }),
        _ => None,
    }
}

// === impl NodeFacts ===

impl NodeFacts {
    /// Reads a node.
    pub fn read(node: &[u8]) -> Result<Self, serde_json::Error> {
        let Object {
            metadata,
            spec,
            status,
        } = serde_json::from_slice(node)?;
        let ready = |one: &Condition| one.kind == "Ready" && one.status == "True";
        Ok(Self {
            rack: metadata.labels.get(labels::RACK).cloned(),
            name: metadata.name,
            boot: status.node_info.boot_id,
            cordoned: spec.unschedulable,
            ready: status.conditions.iter().any(ready),
        })
    }
}

/// The node of a `BgpNode` and the leaves that it has established sessions with, in order.
pub fn leaves(bgp_node: &[u8]) -> Result<(String, Vec<PlacementLeaf>), serde_json::Error> {
    let object: Object = serde_json::from_slice(bgp_node)?;
    let established = object.status.sessions.into_iter();
    let mut leaves: Vec<PlacementLeaf> = established
        .filter(|session| session.state == "Established")
        .filter_map(|session| {
            let told = session.remote_hostname.filter(|name| !name.is_empty());
            Some(PlacementLeaf {
                name: told.or(session.remote_router_id).or(session.neighbor)?,
                interface: session.interface,
            })
        })
        .collect();
    leaves.sort_by(|a, b| (&a.name, &a.interface).cmp(&(&b.name, &b.interface)));
    Ok((object.metadata.name, leaves))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_names_its_topmost_owner() {
        let pod = json!({
            "metadata": {"name": "web-5d-x", "namespace": "default", "uid": "u1",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d", "uid": "r1", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        let deployment = Owner {
            kind: "Deployment".into(),
            name: "web".into(),
            uid: "d1".into(),
        };
        let facts = PodFacts::read(pod.to_string().as_bytes(), |namespace, owner| {
            assert_eq!((namespace, owner.name.as_str()), ("default", "web-5d"));
            Some(deployment)
        });
        let facts = facts.unwrap();
        assert_eq!(facts.workload, "Deployment/web");
        assert_eq!(facts.controller, "r1");
        assert_eq!(facts.addresses, ["10.0.0.1", "fd00::1"]);
        assert_eq!(facts.end, None);
        assert!(facts.scheduled.is_some());
    }

    #[test]
    fn leaves_are_those_with_a_session() {
        let node = json!({"metadata": {"name": "n1"}, "status": {"sessions": [
            {"neighbor": "fe80::2", "interface": "eth2", "state": "Established", "remoteRouterId": "10.0.0.2"},
            {"neighbor": "fe80::1", "interface": "eth1", "state": "Established", "remoteHostname": "leaf1"},
            {"neighbor": "10.9.9.9", "state": "Active"},
        ]}});
        let (node, leaves) = leaves(node.to_string().as_bytes()).unwrap();
        assert_eq!(node, "n1");
        let names: Vec<_> = leaves.iter().map(|leaf| leaf.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.2", "leaf1"]);
    }
}
