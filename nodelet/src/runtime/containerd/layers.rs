//! Writable layers of containers that are about to be made.
//!
//! A snapshot needs the image only: it is made while the pod's namespaces, network and volumes are, and
//! the container finds it. One that no container took goes with its pod, or in the next sweep.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Shared;
use super::state::RootfsMount;
use crate::images::Resolved;
use crate::runtime::{ContainerId, Result};

/// A layer that waits for its container.
struct Layer {
    pod_uid: String,
    /// What it stands on.
    chain_id: String,
    mounts: Vec<RootfsMount>,
}

/// Those that wait.
#[derive(Default)]
pub(super) struct Layers(Mutex<HashMap<ContainerId, Layer>>);

// === impl Layers ===

impl Layers {
    /// Whether one waits for this container.
    pub(super) fn waits(&self, id: &ContainerId) -> bool {
        self.0.lock().contains_key(id)
    }

    fn of_pod(&self, pod_uid: &str) -> Vec<ContainerId> {
        let layers = self.0.lock();
        let of_pod = layers.iter().filter(|(_, layer)| layer.pod_uid == pod_uid);
        of_pod.map(|(id, _)| id.clone()).collect()
    }
}

impl Shared {
    /// Makes the layer of a container that is to come.
    pub(super) async fn prepare_layer(
        &self,
        pod_uid: &str,
        id: &ContainerId,
        image: &str,
    ) -> Result<()> {
        let _lock = self.lock(id).await;
        if self.layers.waits(id) || self.states.of(id).record()?.is_some() {
            return Ok(());
        }
        let image = self.images.resolve(image).await?;
        let layer = Layer {
            pod_uid: pod_uid.to_owned(),
            mounts: self.prepare_rootfs(id, &image).await?,
            chain_id: image.chain_id,
        };
        self.layers.0.lock().insert(id.clone(), layer);
        Ok(())
    }

    /// The layer of a container: the one that waits, or a new one. The caller holds the lock.
    pub(super) async fn take_layer(
        &self,
        id: &ContainerId,
        image: &Resolved,
    ) -> Result<Vec<RootfsMount>> {
        let waiting = self.layers.0.lock().remove(id);
        match waiting {
            Some(layer) if layer.chain_id == image.chain_id => return Ok(layer.mounts),
            // Its image has been replaced by another one of its name.
            Some(_) => self.delete_container(id).await?,
            None => {}
        }
        self.prepare_rootfs(id, image).await
    }

    /// Removes what waits for containers of a pod.
    pub(super) async fn drop_layers(&self, pod_uid: &str) -> Result<()> {
        for id in self.layers.of_pod(pod_uid) {
            let _lock = self.lock(&id).await;
            if self.layers.waits(&id) {
                self.delete_container(&id).await?;
                self.layers.0.lock().remove(&id);
            }
        }
        Ok(())
    }
}
