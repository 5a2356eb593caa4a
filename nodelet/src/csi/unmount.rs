//! Takes volumes away: from a pod that ends, and from the node when no pod has them any more.
//!
//! A pod's end waits for its own volumes only. Unstaging is the business of [`run`], which also lets
//! go of what pods have left that are gone: after a restart of the agent, or when a driver was away.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peapod_csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use tokio::task::JoinSet;

use super::ledger::{Published, Staged};
use super::{Csi, registration};
use crate::pods::Context;
use crate::volumes::{mounts, place};

/// How long drivers have to answer when everything is let go of.
const DRIVERS_LIMIT: Duration = Duration::from_secs(5);
/// First and longest wait after something could not be let go of.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(120));

/// Takes away everything that is published for a pod.
///
/// # Errors
/// The first failure; the others are tried all the same.
pub async fn unmount_pod(context: &Context, uid: &str) -> Result<(), String> {
    let all = context.csi.store.read(|ledger| ledger.of_pod(uid));
    let each = all
        .iter()
        .map(|published| unpublish(&context.csi, published));
    let done = futures::future::join_all(each).await;
    context.csi.wake.notify_one();
    done.into_iter().collect()
}

async fn unpublish(csi: &Csi, published: &Published) -> Result<(), String> {
    let volume = &published.volume;
    let _turn = csi.store.turn(volume).await;
    let failed = |error: String| {
        format!(
            "UnmountVolume.TearDown failed for volume \"{}\" : {error}",
            published.name
        )
    };
    let driver = csi.drivers.get(&volume.driver).map_err(failed)?;
    let request = NodeUnpublishVolumeRequest {
        volume_id: volume.handle.clone(),
        target_path: csi.drivers.layout.shown(driver.view, &published.path),
    };
    let called = driver.driver.call(request).await;
    called.map_err(|error| failed(error.to_string()))?;
    let (path, block) = (published.path.clone(), published.block);
    let removed = tokio::task::spawn_blocking(move || remove(&path, block)).await;
    removed.map_err(|e| e.to_string())?.map_err(failed)?;
    let (pod, name) = (published.pod.clone(), published.name.clone());
    let noted = csi.store.change(move |ledger| {
        ledger.unpublished(&pod, &name);
        Ok(())
    });
    noted.await
}

/// Removes what a driver has left of a place. What is in a volume is never removed.
fn remove(path: &Path, block: bool) -> Result<(), String> {
    let told =
        |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
    if !block && mounts::is_mount_point(path) {
        return Err(format!(
            "{} is still mounted; the driver has not unpublished it",
            path.display()
        ));
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(told("remove", error)),
        _ => {}
    }
    // The folder of the volume, if that was all in it.
    if let Some(parent) = path.parent() {
        match fs::remove_dir(parent) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(told("remove the folder of", error));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn unstage(csi: &Csi, staged: &Staged) -> Result<(), String> {
    let volume = &staged.volume;
    let _turn = csi.store.turn(volume).await;
    // A pod may have come for it meanwhile.
    if !csi.store.read(|ledger| ledger.is_idle(volume)) {
        return Ok(());
    }
    let driver = csi.drivers.get(&volume.driver)?;
    let request = NodeUnstageVolumeRequest {
        volume_id: volume.handle.clone(),
        staging_target_path: csi.drivers.layout.shown(driver.view, &staged.path),
    };
    let called = driver.driver.call(request).await;
    called.map_err(|error| error.to_string())?;
    let path = staged.path.clone();
    let removed = tokio::task::spawn_blocking(move || remove(&path, false)).await;
    removed.map_err(|e| e.to_string())??;
    let volume = volume.clone();
    let noted = csi.store.change(move |ledger| {
        ledger.unstaged(&volume);
        Ok(())
    });
    noted.await
}

/// A pod that is gone: its volumes, and then its files.
async fn bury(context: &Context, uid: &str) -> Result<(), String> {
    unmount_pod(context, uid).await?;
    let dir = context.pod_dir(uid);
    let removed = tokio::task::spawn_blocking(move || place::remove(&dir)).await;
    removed
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())
}

/// Lets go of all that drivers hold for the node of this folder, whose agent and containers have ended, as
/// far as drivers answer. Gives what could not be let go of.
pub async fn release(root: &Path) -> Vec<String> {
    let csi = Csi::open(root);
    let (published, staged) = csi
        .store
        .read(|ledger| (ledger.published(), ledger.staged()));
    if published.is_empty() && staged.is_empty() {
        return Vec::new();
    }
    let mut changes = csi.drivers.changes();
    let mut registering = JoinSet::new();
    registering.spawn(registration::run(csi.drivers.clone()));
    // Those that do not answer in time are gone.
    let _ = tokio::time::timeout(DRIVERS_LIMIT, changes.wait_for(|settled| *settled)).await;
    let mut faults = Vec::new();
    for published in &published {
        faults.extend(unpublish(&csi, published).await.err());
    }
    for staged in &staged {
        let done = unstage(&csi, staged).await.err();
        let handle = &staged.volume.handle;
        faults.extend(done.map(|error| format!("volume {handle}: {error}")));
    }
    faults
}

/// Lets go of what no pod has, for ever: woken by the end of a pod and by drivers that come.
pub async fn run(context: Arc<Context>) {
    let mut drivers = context.csi.drivers.changes();
    let mut failures = 0_u32;
    loop {
        drivers.borrow_and_update();
        let wait = match tidy(&context).await {
            true => {
                failures = 0;
                None
            }
            false => {
                let wait = AGAIN.0 * 2_u32.pow(failures.min(16));
                failures += 1;
                Some(wait.min(AGAIN.1))
            }
        };
        tokio::select! {
            () = context.csi.wake.notified() => {}
            Ok(()) = drivers.changed() => failures = 0,
            () = super::sleep(wait) => {}
        }
    }
}

/// Whether nothing is left to let go of.
async fn tidy(context: &Arc<Context>) -> bool {
    let idle = context.csi.store.read(|ledger| ledger.idle());
    let mut work = JoinSet::new();
    for staged in idle {
        let context = context.clone();
        work.spawn(async move {
            let done = unstage(&context.csi, &staged).await;
            done.map_err(|error| format!("volume {}: {error}", staged.volume.handle))
        });
    }
    for uid in orphans(context) {
        let context = context.clone();
        work.spawn(async move {
            let done = bury(&context, &uid).await;
            done.map_err(|error| format!("pod {uid}, which is gone: {error}"))
        });
    }
    let mut all = true;
    while let Some(done) = work.join_next().await {
        let done = done.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = done {
            all = false;
            tracing::warn!(error, "a CSI volume cannot be let go of; trying again");
        }
    }
    all
}

/// The pods that have left volumes; none before the API has said which pods there are.
fn orphans(context: &Context) -> BTreeSet<String> {
    if !context
        .csi
        .listed
        .load(std::sync::atomic::Ordering::Acquire)
    {
        return BTreeSet::new();
    }
    let known: HashSet<String> = context.table.all().iter().map(|e| e.uid.clone()).collect();
    context.csi.store.read(|ledger| ledger.orphans(&known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_volume_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("pv/mount");
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("data"), "x").unwrap();
        assert!(remove(&mount, false).unwrap_err().contains("cannot remove"));
        fs::remove_file(mount.join("data")).unwrap();
        remove(&mount, false).unwrap();
        assert!(!dir.path().join("pv").exists());
        remove(&mount, false).unwrap();
        assert!(dir.path().exists());
    }
}
