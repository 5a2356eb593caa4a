//! The node's Lease in `kube-node-lease`: that it is alive, said cheaply.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use serde_json::json;

const NAMESPACE: &str = "kube-node-lease";
/// A node that has not been heard of for so long is taken for gone, seconds.
pub const DURATION_S: i32 = 40;

/// Renews the Lease, or makes it.
pub async fn renew(client: &Client, node: &str, uid: Option<&str>) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": node, "renewTime": now,
        "leaseDurationSeconds": DURATION_S}});
    let renewed = leases
        .patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match renewed {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            create(&leases, node, uid, now).await
        }
        other => other.map(drop),
    }
}

async fn create(
    leases: &Api<Lease>,
    node: &str,
    uid: Option<&str>,
    now: MicroTime,
) -> Result<(), kube::Error> {
    let owner = uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION_S),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    leases
        .create(&PostParams::default(), &lease)
        .await
        .map(drop)
}
