//! Unpacking: each layer applied by containerd's differ onto a snapshot of the ones below it.

use std::collections::BTreeSet;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Kind, ListSnapshotsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UsageRequest,
};
use containerd_client::types::{Descriptor as ContainerdDescriptor, Mount};
use tokio::sync::watch;

use super::content::{Content, Labels, snapshot_labels};
use super::manifest::{Config, Descriptor, Manifest};
use crate::runtime::containerd::client::{Client, SNAPSHOTTER};
use crate::runtime::{ImageError, ImageUsage, Progress, ProgressEvent, Result};

/// Which blobs of an image are in the content store.
#[derive(Debug, Default)]
pub struct Stored(watch::Sender<BTreeSet<String>>);

// === impl Stored ===

impl Stored {
    /// All blobs of an image.
    pub fn all(manifest: &Manifest) -> Self {
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        let digests = blobs.map(|blob| blob.digest.clone()).collect();
        Self(watch::Sender::new(digests))
    }

    /// One more is there.
    pub fn add(&self, digest: &str) {
        self.0.send_modify(|stored| {
            stored.insert(digest.to_owned());
        });
    }

    /// Waits until a blob is there.
    pub async fn wait(&self, digest: &str) {
        // The sender is ours: it cannot go away meanwhile.
        let _ = self.0.subscribe().wait_for(|s| s.contains(digest)).await;
    }
}

/// Unpacks the layers that are not unpacked yet, each as soon as its blob is `stored`, and ties the result
/// to the config, which is. The client holds a lease.
pub async fn unpack(
    client: &Client,
    subject: &str,
    manifest: &Manifest,
    config: &Config,
    stored: &Stored,
    progress: &dyn Progress,
) -> Result<()> {
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        let reason = format!(
            "its manifest names {} layers, its config {}",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        );
        return Err(ImageError::Corrupt {
            subject: subject.to_owned(),
            reason,
        }
        .into());
    }
    let chain = config.chain_ids();
    // A shared base is found at once, from the top.
    let mut have = chain.len();
    while have > 0 && !exists(client, &chain[have - 1]).await? {
        have -= 1;
    }
    for (n, layer) in manifest.layers.iter().enumerate() {
        if n >= have {
            stored.wait(&layer.digest).await;
            let parent = if n == 0 { "" } else { chain[n - 1].as_str() };
            let step = Layer {
                client,
                subject,
                layer,
                diff_id: &config.rootfs.diff_ids[n],
            };
            step.apply(parent, &chain[n]).await?;
        }
        progress.update(ProgressEvent::Unpacked {
            layer: layer.digest.clone(),
        });
    }
    match chain.last() {
        Some(top) => {
            let content = Content::new(client.clone());
            content
                .label(&manifest.config.digest, snapshot_labels(top))
                .await
        }
        None => Ok(()),
    }
}

/// Whether the snapshot is there.
pub async fn exists(client: &Client, name: &str) -> Result<bool> {
    let request = StatSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: name.to_owned(),
    };
    let what = format!("looking for snapshot {name}");
    Ok(client
        .call_find(&what, client.snapshots().stat(request))
        .await?
        .is_some())
}

/// What the snapshots of layers occupy; those of containers are the containers'.
pub async fn usage(client: &Client) -> Result<ImageUsage> {
    let what = "measuring snapshots";
    let request = ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        filters: Vec::new(),
    };
    let mut stream = client.call(what, client.snapshots().list(request)).await?;
    let mut total = ImageUsage::default();
    while let Some(part) = stream.message().await.map_err(|s| client.error(what, &s))? {
        for info in part
            .info
            .into_iter()
            .filter(|info| info.kind() == Kind::Committed)
        {
            let request = UsageRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key: info.name,
            };
            let used = client
                .call_gone_ok(what, client.snapshots().usage(request))
                .await?;
            total.bytes += used.size.max(0) as u64;
            total.inodes += used.inodes.max(0) as u64;
        }
    }
    Ok(total)
}

/// One layer on its way into the file system.
struct Layer<'a> {
    client: &'a Client,
    subject: &'a str,
    layer: &'a Descriptor,
    diff_id: &'a str,
}

impl Layer<'_> {
    async fn apply(&self, parent: &str, chain_id: &str) -> Result<()> {
        // Two pulls may unpack the same base at once; each on a key of its own, one commits.
        let key = format!("unpack-{}-{chain_id}", uuid::Uuid::new_v4());
        let result = self.apply_as(&key, parent, chain_id).await;
        if result.is_err() {
            self.discard(&key).await;
        }
        result
    }

    async fn apply_as(&self, key: &str, parent: &str, chain_id: &str) -> Result<()> {
        let what = format!("unpacking layer {} of {}", self.layer.digest, self.subject);
        let mounts = self.prepare(&what, key, parent).await?;
        let request = ApplyRequest {
            diff: Some(containerd_descriptor(self.layer)),
            mounts,
            ..ApplyRequest::default()
        };
        let reply = self
            .client
            .call(&what, self.client.diff().apply(request))
            .await?;
        let applied = reply
            .applied
            .map(|applied| applied.digest)
            .unwrap_or_default();
        if applied != self.diff_id {
            let (subject, layer, wanted) = (self.subject, &self.layer.digest, self.diff_id);
            let reason = format!("layer {layer} unpacks to {applied}, its config says {wanted}");
            return Err(ImageError::Corrupt {
                subject: subject.to_owned(),
                reason,
            }
            .into());
        }
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: chain_id.to_owned(),
            key: key.to_owned(),
            labels: Labels::new(),
        };
        let mut snapshots = self.client.snapshots();
        match self
            .client
            .call_create(&what, snapshots.commit(request))
            .await?
        {
            Some(()) => {}
            None => self.discard(key).await,
        }
        Ok(())
    }

    async fn prepare(&self, what: &str, key: &str, parent: &str) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: Labels::new(),
        };
        let mut snapshots = self.client.snapshots();
        Ok(self
            .client
            .call(what, snapshots.prepare(request))
            .await?
            .mounts)
    }

    /// If even this fails, the end of the lease takes the snapshot.
    async fn discard(&self, key: &str) {
        let request = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        let mut snapshots = self.client.snapshots();
        let removal = self
            .client
            .call_gone_ok("removing a snapshot", snapshots.remove(request));
        if let Err(error) = removal.await {
            tracing::debug!(%error, key, "left to the garbage collector");
        }
    }
}

/// containerd's differ chooses the decompressor by media type.
pub fn containerd_descriptor(descriptor: &Descriptor) -> ContainerdDescriptor {
    ContainerdDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: descriptor.size as i64,
        annotations: Labels::new(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_layer_waits_for_its_blob_only() {
        let stored = Stored::default();
        stored.add("sha256:a");
        assert!(stored.wait("sha256:a").now_or_never().is_some());
        let mut second = std::pin::pin!(stored.wait("sha256:b"));
        assert!(second.as_mut().now_or_never().is_none());
        stored.add("sha256:b");
        assert!(second.now_or_never().is_some());
    }
}
