//! `NodeRestriction`: a node writes its own Node, Lease and pods' status, and nobody else's.
//!
//! The node authorizer decides by names; here the objects themselves are looked at. The core is
//! [`check`], without IO.

use async_trait::async_trait;
use peapod_api::storage::{FINALIZER, NODE as NODE_OF_VOLUME};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, find};
use crate::api::Api;
use crate::auth::node::rules::{LEASES, node_of};
use crate::registry::kinds::certificates;
use crate::registry::value;
use crate::status::Result;

/// The annotation of pods that a node runs from files of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The prefix of labels that no node may give itself.
const RESTRICTED: &str = "node-restriction.kubernetes.io/";
/// Labels of Kubernetes that a node may give itself.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Domains under which a node may give itself any label.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The one Service that a node makes: its DNS.
const CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");

pub struct NodeRestriction;

/// A write by a node.
pub struct NodeWrite<'a> {
    /// The node.
    pub node: &'a str,
    /// What is done.
    pub operation: Operation,
    /// Group, plural and subresource of what is written.
    pub what: (&'a str, &'a str, &'a str),
    /// The namespace; empty for what is in none.
    pub namespace: &'a str,
    /// The name; for a new object that of its metadata.
    pub name: &'a str,
    /// The object as it is to be; for a deletion as it is.
    pub new: &'a Value,
    /// The object before; for a token and an eviction the pod that it is about.
    pub old: Option<&'a Value>,
}

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let Some(node) = node_of(write.user) else {
            return Ok(());
        };
        let kind = &write.resource.kind;
        let what = (kind.group.as_str(), kind.plural.as_str(), write.subresource);
        let pod = match what {
            ("", "serviceaccounts", "token") => {
                let name = value::text(object, "spec.boundObjectRef.name");
                find(api, "", "pods", write.namespace, name)
            }
            ("", "pods", "eviction") => find(api, "", "pods", write.namespace, write.name),
            _ => None,
        };
        let checked = check(&NodeWrite {
            node,
            operation: write.operation,
            what,
            namespace: write.namespace,
            name: write.name,
            new: object,
            old: pod.as_ref().or(write.old),
        });
        checked.map_err(|why| write.forbid(why))
    }
}

/// Refuses what is not the node's own, with kube-apiserver's sentence.
pub fn check(write: &NodeWrite<'_>) -> Result<(), String> {
    match write.what {
        ("", "pods", "") => pod(write),
        ("", "pods", "status") => pod_status(write),
        ("", "pods", "eviction") => match write.old.is_some_and(|pod| write.runs(pod)) {
            true => Ok(()),
            false => write.refuse("can only evict pods with spec.nodeName set to itself"),
        },
        ("", "nodes", _) => node(write),
        ("", "serviceaccounts", "token") => token(write),
        ("coordination.k8s.io", "leases", _) => lease(write),
        ("certificates.k8s.io", "certificatesigningrequests", "") => request(write),
        ("storage.k8s.io", "csinodes", _) if write.name != write.node => {
            write.refuse("is not allowed to modify the CSINode of another node")
        }
        // What upstream's nodes never write, and ours do.
        ("", "services", _) if (write.namespace, write.name) != CLUSTER_DNS => {
            write.refuse("can only publish the Service of the cluster's DNS")
        }
        ("", "persistentvolumes", _) => volume(write),
        ("net.peapod.dev", "bgpnodes", _) if write.name != write.node => {
            write.refuse("is not allowed to modify the BgpNode of another node")
        }
        ("net.peapod.dev", "ipblocks", _) => block(write),
        _ => Ok(()),
    }
}

/// A node lets go of a block of its own that is being deleted; that is all.
fn block(write: &NodeWrite<'_>) -> Result<(), String> {
    let old = write.old.filter(|_| write.operation == Operation::Update);
    let Some(old) = old.filter(|old| old["spec"] == write.new["spec"]) else {
        return write.refuse("can only take finalizers away from its IpBlocks");
    };
    if value::text(old, "spec.node") != write.node {
        return write.refuse("is not allowed to modify an IpBlock of another node");
    }
    if value::text(old, "metadata.deletionTimestamp").is_empty() {
        return write.refuse("can only let go of an IpBlock that is being deleted");
    }
    Ok(())
}

fn pod(write: &NodeWrite<'_>) -> Result<(), String> {
    match write.operation {
        Operation::Create => mirror_pod(write),
        Operation::Delete if !write.runs(write.new) => {
            write.refuse("can only delete pods with spec.nodeName set to itself")
        }
        Operation::Delete => Ok(()),
        Operation::Update => write.refuse("is not allowed to modify pods"),
        Operation::Connect => Ok(()),
    }
}

fn mirror_pod(write: &NodeWrite<'_>) -> Result<(), String> {
    let pod = write.new;
    let node = write.node;
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !write.runs(pod) {
        return write.refuse("can only create pods with spec.nodeName set to itself");
    }
    let is_self =
        |owner: &Value| value::text(owner, "kind") == "Node" && value::text(owner, "name") == node;
    if !value::list(pod, "metadata.ownerReferences")
        .iter()
        .all(is_self)
    {
        return write.refuse("can only create pods with an owner reference set to itself");
    }
    if !value::text(pod, "spec.serviceAccountName").is_empty() {
        return write.refuse("can not create pods that reference a service account");
    }
    let api_volumes = [
        "secret",
        "configMap",
        "projected",
        "persistentVolumeClaim",
        "ephemeral",
    ];
    let volumes = value::list(pod, "spec.volumes");
    for source in api_volumes {
        if volumes
            .iter()
            .any(|volume| value::at(volume, source).is_some())
        {
            return write.refuse(&format!(
                "can not create pods that reference volumes of type {source}"
            ));
        }
    }
    Ok(())
}

fn pod_status(write: &NodeWrite<'_>) -> Result<(), String> {
    let Some(old) = write.old.filter(|pod| write.runs(pod)) else {
        return write
            .refuse("can only update pod status for pods with spec.nodeName set to itself");
    };
    match old["metadata"]["labels"] == write.new["metadata"]["labels"] {
        true => Ok(()),
        false => write.refuse("cannot update labels through pod status"),
    }
}

fn node(write: &NodeWrite<'_>) -> Result<(), String> {
    if write.name != write.node {
        return write.refuse(&format!("is not allowed to modify node {:?}", write.name));
    }
    match (write.operation, write.old) {
        (Operation::Delete, _) => {
            write.refuse(&format!("is not allowed to delete node {:?}", write.name))
        }
        (Operation::Connect, _) => Ok(()),
        (Operation::Create, _) => {
            let labels = changed_labels(write.new, &Value::Null);
            allowed(write, &labels, "set")
        }
        (Operation::Update, old) => {
            let old = old.unwrap_or(&Value::Null);
            if write.new["spec"]["taints"] != old["spec"]["taints"] {
                return write.refuse("is not allowed to modify taints");
            }
            if write.new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
                return write.refuse("is not allowed to modify ownerReferences");
            }
            allowed(write, &changed_labels(write.new, old), "modify")
        }
    }
}

/// The labels that differ, in their order.
fn changed_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let keys = |object: &'a Value| {
        let labels = value::map(object, "metadata.labels").into_iter().flatten();
        labels.map(|(key, _)| key.as_str())
    };
    let differs =
        |key: &&str| new["metadata"]["labels"].get(key) != old["metadata"]["labels"].get(key);
    let mut all: Vec<&str> = keys(new).chain(keys(old)).filter(differs).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn allowed(write: &NodeWrite<'_>, labels: &[&str], verb: &str) -> Result<(), String> {
    let mut forbidden = labels
        .iter()
        .filter(|label| !is_own_label(label))
        .peekable();
    if forbidden.peek().is_none() {
        return Ok(());
    }
    let all: Vec<&str> = forbidden.copied().collect();
    write.refuse(&format!(
        "is not allowed to {verb} the following labels: {}",
        all.join(", ")
    ))
}

fn is_own_label(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return true;
    };
    let within = |of: &str| {
        let rest = domain.strip_suffix(of);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if label.starts_with(RESTRICTED) || within("node-restriction.kubernetes.io") {
        return false;
    }
    let is_kubernetes = within("kubernetes.io") || within("k8s.io");
    !is_kubernetes || OWN_LABELS.contains(&label) || OWN_DOMAINS.iter().any(|of| within(of))
}

fn token(write: &NodeWrite<'_>) -> Result<(), String> {
    let bound = |field: &str| value::text(write.new, &format!("spec.boundObjectRef.{field}"));
    if bound("kind") != "Pod" || bound("name").is_empty() {
        return Err("node requested token not bound to a pod".to_owned());
    }
    if bound("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    match write.old {
        Some(pod) if value::text(pod, "metadata.uid") != bound("uid") => Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record ({})",
            bound("uid"),
            value::text(pod, "metadata.uid"),
        )),
        Some(pod) if write.runs(pod) => audiences(write, pod),
        Some(_) => {
            Err("node requested token bound to a pod scheduled on a different node".to_owned())
        }
        None => Err(format!("pod not found: {}", bound("name"))),
    }
}

/// A node asks for certificates in its own name.
fn request(write: &NodeWrite<'_>) -> Result<(), String> {
    let signer = value::text(write.new, "spec.signerName");
    let of_nodes = matches!(
        signer,
        "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
    );
    if write.operation != Operation::Create || !of_nodes {
        return Ok(());
    }
    let own = format!("system:node:{}", write.node);
    let asked = certificates::common_name(value::text(write.new, "spec.request"));
    match asked.as_deref() == Some(own.as_str()) {
        true => Ok(()),
        false => Err(format!("can only create a node CSR with CN={own}")),
    }
}

/// A token is for whom the pod's volumes say.
fn audiences(write: &NodeWrite<'_>, pod: &Value) -> Result<(), String> {
    let volumes = value::list(pod, "spec.volumes").iter();
    let sources = volumes.flat_map(|volume| value::list(volume, "projected.sources"));
    let tokens = sources.filter_map(|source| value::at(source, "serviceAccountToken"));
    let known: Vec<&str> = tokens.map(|token| value::text(token, "audience")).collect();
    let asked = value::list(write.new, "spec.audiences").iter();
    let mut asked = asked.filter_map(Value::as_str);
    match asked.find(|one| !known.contains(one)) {
        Some(other) => Err(format!("audience {other:?} not found in pod spec volume")),
        None => Ok(()),
    }
}

fn lease(write: &NodeWrite<'_>) -> Result<(), String> {
    if write.namespace != LEASES {
        return Err(format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    match write.name == write.node {
        true => Ok(()),
        false => {
            Err("can only access node lease with the same name as the requesting node".to_owned())
        }
    }
}

/// Of a volume of its own a node takes away the finalizer that says that there is data on it.
fn volume(write: &NodeWrite<'_>) -> Result<(), String> {
    let old = write.old.unwrap_or(&Value::Null);
    let own = value::at(old, "metadata.annotations")
        .and_then(|all| all.get(NODE_OF_VOLUME))
        .is_some_and(|node| node == write.node);
    if !own {
        return write.refuse("can only release its own volumes");
    }
    let mut expected = old.clone();
    if let Some(list) =
        value::at_mut(&mut expected, "metadata.finalizers").and_then(Value::as_array_mut)
    {
        list.retain(|one| one != FINALIZER);
    }
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["managedFields", "resourceVersion"] {
            value::remove(&mut object, &format!("metadata.{field}"));
        }
        if value::list(&object, "metadata.finalizers").is_empty() {
            value::remove(&mut object, "metadata.finalizers");
        }
        object
    };
    match rest(write.new) == rest(&expected) || rest(write.new) == rest(old) {
        true => Ok(()),
        false => write.refuse("can only release its own volumes"),
    }
}

// === impl NodeWrite ===

impl NodeWrite<'_> {
    fn runs(&self, pod: &Value) -> bool {
        value::text(pod, "spec.nodeName") == self.node
    }

    fn refuse(&self, why: &str) -> Result<(), String> {
        Err(format!("node {:?} {why}", self.node))
    }
}
