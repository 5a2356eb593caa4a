//! Tells the API which drivers are on the node: the CSINode, and on the Node the topology as labels
//! and what drivers call the node as an annotation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use peapod_api::k8s_openapi;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Drivers;
use super::driver::Registered;

/// What drivers call the node, by driver, as JSON; upstream's.
pub const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// First and longest wait after a failed request to the API.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Keeps the CSINode of a node for ever. Nothing is written until the Node is in the API, which owns
/// it.
pub async fn run(
    client: Client,
    name: String,
    drivers: Arc<Drivers>,
    mut node: watch::Receiver<Arc<Node>>,
) {
    let mut changes = drivers.changes();
    let mut failures = 0;
    loop {
        let settled = *changes.borrow_and_update();
        let uid = node.borrow_and_update().uid();
        let wait = match &uid {
            None => None,
            Some(uid) => match tell(&client, &name, uid, &drivers, settled).await {
                Ok(()) => {
                    failures = 0;
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot tell of the CSI drivers; trying again");
                    failures += 1;
                    Some((AGAIN.0 * 2_u32.pow(failures.min(16))).min(AGAIN.1))
                }
            },
        };
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => break,
                Ok(()) = node.changed() => {
                    // Of the Node only its identity matters.
                    if node.borrow_and_update().uid() != uid {
                        break;
                    }
                }
                () = super::sleep(wait) => break,
            }
        }
    }
}

async fn tell(
    client: &Client,
    name: &str,
    uid: &str,
    drivers: &Drivers,
    settled: bool,
) -> Result<(), kube::Error> {
    let registered = drivers.all();
    if let Some(patch) = of_node(&registered) {
        let nodes: Api<Node> = Api::all(client.clone());
        let params = PatchParams::default();
        nodes.patch(name, &params, &Patch::Merge(patch)).await?;
    }
    let api: Api<CSINode> = Api::all(client.clone());
    let present = api.get_opt(name).await?;
    let before = present.as_ref().map(|present| present.spec.drivers.clone());
    let wanted = merged(before.clone().unwrap_or_default(), &registered, settled);
    match present {
        None => {
            let made = object(name, uid, wanted);
            api.create(&PostParams::default(), &made).await.map(drop)
        }
        Some(present) if before.as_ref() != Some(&wanted) => {
            let mut present = present;
            present.spec.drivers = wanted;
            api.replace(name, &PostParams::default(), &present)
                .await
                .map(drop)
        }
        Some(_) => Ok(()),
    }
}

fn object(name: &str, uid: &str, drivers: Vec<CSINodeDriver>) -> CSINode {
    CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec { drivers },
        status: None,
    }
}

/// The drivers that a CSINode is to name. As long as some socket has not answered, those of before
/// stay: after a restart of the agent they register again, and nothing should think them gone.
fn merged(
    before: Vec<CSINodeDriver>,
    registered: &BTreeMap<String, Arc<Registered>>,
    settled: bool,
) -> Vec<CSINodeDriver> {
    let mut all: BTreeMap<String, CSINodeDriver> = BTreeMap::new();
    if !settled {
        all.extend(before.into_iter().map(|one| (one.name.clone(), one)));
    }
    all.extend(
        registered
            .iter()
            .map(|(name, one)| (name.clone(), entry(name, one))),
    );
    all.into_values().collect()
}

fn entry(name: &str, registered: &Registered) -> CSINodeDriver {
    let keys: Vec<String> = registered.topology.keys().cloned().collect();
    CSINodeDriver {
        name: name.to_owned(),
        node_id: registered.node_id.clone(),
        topology_keys: (!keys.is_empty()).then_some(keys),
        allocatable: registered
            .volumes_max
            .map(|count| VolumeNodeResources { count: Some(count) }),
    }
}

/// The patch for the Node; `None` if there is nothing to say.
fn of_node(registered: &BTreeMap<String, Arc<Registered>>) -> Option<Value> {
    if registered.is_empty() {
        return None;
    }
    let ids: BTreeMap<_, _> = registered
        .iter()
        .map(|(name, one)| (name, &one.node_id))
        .collect();
    let labels: BTreeMap<_, _> = registered.values().flat_map(|one| &one.topology).collect();
    let ids = serde_json::to_string(&ids).unwrap_or_default();
    Some(json!({"metadata": {"labels": labels, "annotations": {NODE_ID: ids}}}))
}
