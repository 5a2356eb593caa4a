//! Watches for PersistentVolumes of the built-in class that are being deleted, and removes their
//! data; see [`local_class`](super::local_class) for the protocol.

use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use peapod_api::k8s_openapi;
use serde_json::json;

use super::local_class;

/// Runs for ever.
pub async fn run(client: Client, node: String, folder: std::path::PathBuf) {
    let volumes: Api<PersistentVolume> = Api::all(client);
    let config = watcher::Config::default().streaming_lists();
    let mut events = watcher(volumes.clone(), config).default_backoff().boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(volume) | watcher::Event::InitApply(volume))) => {
                reclaim(&volumes, &volume, &node, &folder).await;
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "watch of the volumes broke off"),
        }
    }
}

async fn reclaim(
    volumes: &Api<PersistentVolume>,
    volume: &PersistentVolume,
    node: &str,
    folder: &Path,
) {
    let Some((path, finalizers)) = local_class::to_remove(volume, node) else {
        return;
    };
    let name = volume.name_any();
    let (folder, dir) = (folder.to_owned(), path.to_owned());
    let removed = tokio::task::spawn_blocking(move || local_class::remove(&folder, &dir)).await;
    if let Err(error) = removed.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
        tracing::error!(volume = %name, path = %path.display(), %error, "cannot remove a volume's data");
        return;
    }
    let patch = json!({"metadata": {
        "resourceVersion": volume.resource_version(), "finalizers": finalizers}});
    let patched = volumes
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Ok(_) => tracing::info!(volume = %name, "removed a volume's data"),
        // A conflict comes with an event of its own.
        Err(error) => tracing::debug!(volume = %name, %error, "cannot release a volume"),
    }
}
