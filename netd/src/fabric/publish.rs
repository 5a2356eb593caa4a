//! Keeps this node's `BgpNode` as it should be.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use peapod_api::net::{BgpNode, BgpNodeSpec, BgpNodeStatus};
use serde_json::json;
use tokio::sync::watch;

/// First and longest pause after a refusal.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Writes each status that differs from the one before; of those that come while one is being
/// written only the last. Nothing is written before the node speaks BGP, or fails to.
pub async fn run(
    client: Client,
    node: String,
    mut told: watch::Receiver<BgpNodeStatus>,
    owner: watch::Receiver<Option<String>>,
) {
    let api: Api<BgpNode> = Api::all(client);
    let mut written: Option<BgpNodeStatus> = None;
    let mut pause = PAUSES.0;
    loop {
        let status = told.borrow_and_update().clone();
        let news = match &written {
            Some(written) => *written != status,
            None => status != BgpNodeStatus::default(),
        };
        if !news {
            match told.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        let uid = owner.borrow().clone();
        match write(&api, &node, uid, &status).await {
            Ok(()) => {
                written = Some(status);
                pause = PAUSES.0;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot tell how the node speaks BGP; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

async fn write(
    api: &Api<BgpNode>,
    node: &str,
    uid: Option<String>,
    status: &BgpNodeStatus,
) -> Result<(), kube::Error> {
    let params = PatchParams::default();
    let patch = Patch::Merge(json!({"status": whole(status)}));
    match api.patch_status(node, &params, &patch).await {
        Err(kube::Error::Api(gone)) if gone.code == 404 => {}
        other => return other.map(drop),
    }
    let object = BgpNode {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            owner_references: uid.map(|uid| vec![owned(node, uid)]),
            ..Default::default()
        },
        spec: BgpNodeSpec {},
        status: None,
    };
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    api.patch_status(node, &params, &patch).await.map(drop)
}

/// The status with every field, since a merge patch keeps what it does not name.
fn whole(status: &BgpNodeStatus) -> serde_json::Value {
    let mut fields = json!({"asn": null, "routerId": null, "lastError": null, "conditions": null,
        "drain": null, "handsOverTo": null});
    if let Ok(serde_json::Value::Object(given)) = serde_json::to_value(status)
        && let Some(all) = fields.as_object_mut()
    {
        all.extend(given);
    }
    fields
}

/// It goes with its node.
fn owned(node: &str, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid,
        ..Default::default()
    }
}
