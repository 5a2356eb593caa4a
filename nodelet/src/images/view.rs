//! Images as volumes: a read-only view of an image's file system for a pod, kept until the pod goes.

use std::collections::HashMap;

use containerd_client::services::v1::snapshots::{
    ListSnapshotsRequest, MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;
use jiff::Timestamp;

use crate::runtime::containerd::client::{Client, SNAPSHOTTER};
use crate::runtime::{FsMount, Result};

/// Keeps a snapshot that nothing refers to.
const GC_ROOT: &str = "containerd.io/gc.root";
/// Label of a view: UID of its pod.
const POD_UID: &str = "peapod.dev/pod-uid";
/// Before the UID and the volume's name in the key of a view.
const PREFIX: &str = "volume";

/// What to mount for a view of the layers of `chain_id`; the view of an earlier call will do.
pub async fn open(
    client: &Client,
    chain_id: &str,
    pod_uid: &str,
    volume: &str,
) -> Result<Vec<FsMount>> {
    let key = format!("{PREFIX}-{pod_uid}-{volume}");
    let what = format!("making a view of an image for volume {volume}");
    let labels = HashMap::from([
        (GC_ROOT.to_owned(), Timestamp::now().to_string()),
        (POD_UID.to_owned(), pod_uid.to_owned()),
    ]);
    let request = ViewSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.clone(),
        parent: chain_id.to_owned(),
        labels,
    };
    let mut snapshots = client.snapshots();
    let made = client.call_create(&what, snapshots.view(request)).await?;
    let mounts = match made {
        Some(reply) => reply.mounts,
        None => {
            let request = MountsRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key,
            };
            client.call(&what, snapshots.mounts(request)).await?.mounts
        }
    };
    let plain = |mount: Mount| FsMount {
        kind: mount.r#type,
        source: mount.source,
        options: mount.options,
    };
    Ok(mounts.into_iter().map(plain).collect())
}

/// Removes the views of a pod; nothing of them may be mounted.
pub async fn close(client: &Client, pod_uid: &str) -> Result<()> {
    let what = "removing views of images";
    let request = ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        filters: vec![format!("labels.\"{POD_UID}\"=={pod_uid}")],
    };
    let mut snapshots = client.snapshots();
    let mut stream = client.call(what, snapshots.list(request)).await?;
    let mut keys = Vec::new();
    while let Some(part) = stream.message().await.map_err(|s| client.error(what, &s))? {
        keys.extend(part.info.into_iter().map(|info| info.name));
    }
    let prefix = format!("{PREFIX}-{pod_uid}-");
    for key in keys.into_iter().filter(|key| key.starts_with(&prefix)) {
        let request = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key,
        };
        client.call_gone_ok(what, snapshots.remove(request)).await?;
    }
    Ok(())
}
