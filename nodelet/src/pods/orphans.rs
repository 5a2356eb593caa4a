//! What is on the node and belongs to no pod: left by pods that were deleted while the agent was
//! away. Looked for once, after the first complete list of the node's pods.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use peapod_api::attach::{DetachRequest, PodRef};

use super::Context;
use crate::csi::unmount;
use crate::volumes::place;

/// Removes everything of pods that are not known.
///
/// `found` are the pods of which the runtime had containers or sandboxes when the agent came, with their names as far
/// as those are known.
pub async fn sweep(
    context: &Context,
    known: &HashSet<String>,
    found: BTreeMap<String, Option<PodRef>>,
) {
    for (uid, pod) in find(context, known, found).await {
        tracing::info!(%uid, "removing what is left of a pod that is gone");
        if let Err(error) = remove(context, &uid, pod).await {
            tracing::warn!(%uid, %error, "cannot remove what is left of a pod; next start tries again");
        }
    }
    sweep_logs(context, known).await;
}

/// The pods that have left something, by UID, with their names where those are known.
async fn find(
    context: &Context,
    known: &HashSet<String>,
    found: BTreeMap<String, Option<PodRef>>,
) -> BTreeMap<String, Option<PodRef>> {
    let uids = names_in(context.config.data_dir.join("pods")).await;
    let mut orphans: BTreeMap<_, _> = uids.into_iter().map(|uid| (uid, None)).collect();
    orphans.extend(found);
    if let Ok(attached) = context.network.attached().await {
        orphans.extend(attached.into_iter().map(|pod| (pod.uid.clone(), Some(pod))));
    }
    orphans.retain(|uid, _| !known.contains(uid));
    orphans
}

async fn remove(context: &Context, uid: &str, pod: Option<PodRef>) -> Result<(), String> {
    if let Some(pod) = pod {
        context
            .network
            .detach(DetachRequest { pod })
            .await
            .map_err(|e| e.to_string())?;
    }
    context
        .runtime
        .remove_sandbox(uid)
        .await
        .map_err(|e| e.to_string())?;
    // What cannot be unpublished now is tried again when its driver comes.
    unmount::unmount_pod(context, uid).await?;
    let dir = context.pod_dir(uid);
    let removed = tokio::task::spawn_blocking(move || place::remove(&dir)).await;
    let closed = context.images.close_views(uid).await;
    closed.map_err(|e| e.to_string())?;
    removed
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())
}

/// Log folders are named after namespace, name and UID.
async fn sweep_logs(context: &Context, known: &HashSet<String>) {
    for name in names_in(context.config.log_dir.clone()).await {
        let uid = name.rsplit('_').next().unwrap_or_default();
        if name.matches('_').count() != 2 || known.contains(uid) {
            continue;
        }
        let dir = context.config.log_dir.join(&name);
        if let Err(error) = tokio::fs::remove_dir_all(&dir).await {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove old logs");
        }
    }
}

/// The names in a folder; none if there is no such folder.
async fn names_in(dir: PathBuf) -> Vec<String> {
    let Ok(mut entries) = tokio::fs::read_dir(dir).await else {
        return Vec::new();
    };
    let mut names = Vec::new();
    while let Ok(Some(entry)) = entries.next_entry().await {
        names.extend(entry.file_name().into_string());
    }
    names
}
