//! Ends pods that take more than they may of what the node has for all.
//!
//! Two reasons: a pod is over a limit of its own on local storage ([`limits`]), or the node runs
//! short of memory, disk or process ids ([`thresholds`]) and somebody has to go ([`pressure`]). The
//! decisions are pure; [`measure`] looks at the disk. Limits of memory and of processes are the kernel's affair;
//! that a pod has reached the latter is told ([`refused`]).
//!
//! Files can only be counted by looking at them, so that this loop is the one of the node agent
//! that looks again and again: every [`LOOK_EVERY`], at the pods that declare a limit, and at
//! all of them only while the node is short of something.
//!
//! It must not know how a pod is ended: it tells the pod's worker.

mod forks;
mod limits;
mod measure;
mod pressure;
mod refused;
mod thresholds;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use self::limits::LocalUsage;
pub use self::measure::below;
pub use self::pressure::Shortage;
pub use self::thresholds::{Pressure, Thresholds, Watch};

use self::pressure::Candidate;
use self::thresholds::Pace;
use crate::core::{Eviction, Kind, spec_of, view};
use crate::images::collect::{Collector, Disk};
use crate::node::facts;
use crate::pods::worker::Message;
use crate::pods::{Context, Entry, Table};
use crate::runtime::{ContainerId, DiskUsage};

/// Between two looks, as the kubelet's housekeeping.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks between two collections of images: five minutes, as the kubelet's.
const COLLECT_EVERY: u64 = 30;

/// Watches over the node's pods until it is dropped.
pub async fn run(context: Arc<Context>, table: Table) {
    tokio::join!(refused::run(&context, &table), look_after(&context, &table));
}

async fn look_after(context: &Arc<Context>, table: &Table) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reclaimed = false;
    let config = &context.config;
    let mut watch = Watch::new(config.kubelet.thresholds());
    let image_dir = config.image_dir().await;
    let mut images = Collector::default();
    for count in 0_u64.. {
        look.tick().await;
        // Not at the first look: the node's pods may not be known yet.
        if count % COLLECT_EVERY == 1 {
            collect(context, table, &mut images, &image_dir).await;
        }
        for entry in table.all() {
            if let Some(message) = over_limit(context, &entry).await {
                evict(&entry, Eviction::at_once(message)).await;
            }
        }
        let left = facts::left(&config.data_dir, &image_dir);
        match watch.look(&left, Timestamp::now()).short {
            Some((Shortage::Disk { .. } | Shortage::Inodes { .. }, _)) if !reclaimed => {
                // Images that nobody uses go before pods do; the next look sees what it gave.
                reclaimed = true;
                reclaim(context).await;
            }
            Some((shortage, pace)) => relieve(context, table, shortage, pace).await,
            None => reclaimed = false,
        }
    }
}

/// Removes images that have been unused for long, or that the disk has no room for.
async fn collect(context: &Context, table: &Table, collector: &mut Collector, image_dir: &Path) {
    let (images, containers) = match (
        context.images.list().await,
        context.runtime.containers().await,
    ) {
        (Ok(images), Ok(containers)) => (images, containers),
        (Err(error), _) | (_, Err(error)) => {
            return tracing::debug!(%error, "images cannot be looked at");
        }
    };
    let mut used: BTreeSet<String> = containers.into_iter().map(|c| c.image_id).collect();
    // A pod that waits has not used its images yet, but will.
    for entry in table.all() {
        let pod = entry.pod();
        if !entry.machine.lock().occupies() {
            continue;
        }
        for view in view(&pod) {
            if let Ok(Some(image)) = context.images.get(view.image).await {
                used.insert(image.id);
            }
        }
    }
    let left = facts::left(&context.config.data_dir, image_dir);
    let disk = Disk {
        size: left.image_disk.size,
        free: left.image_disk.free,
    };
    let chosen = collector.choose(
        &images,
        &used,
        disk,
        &context.config.kubelet,
        Timestamp::now(),
    );
    for id in chosen {
        match context.images.remove(&id).await {
            Ok(()) => tracing::info!(image = id, "removed an image that nobody uses"),
            Err(error) => tracing::warn!(image = id, %error, "cannot remove an image"),
        }
    }
}

async fn evict(entry: &Entry, eviction: Eviction) {
    let message = &eviction.message;
    tracing::warn!(pod.uid = entry.uid, message, "evicting a pod");
    // A worker that has ended has no pod left to end.
    let _ = entry.inbox.send(Message::Evict(eviction)).await;
}

/// Why a pod is over a limit on local storage, if it is.
async fn over_limit(context: &Arc<Context>, entry: &Entry) -> Option<String> {
    let pod = entry.pod();
    let spec = spec_of(&pod);
    if !entry.machine.lock().occupies() || !limits::has_any(spec) {
        return None;
    }
    let usage = local_usage(context, entry).await;
    limits::violation(spec, &usage)
}

/// What a pod has on the node's disk. What cannot be looked at counts as nothing.
async fn local_usage(context: &Arc<Context>, entry: &Entry) -> LocalUsage {
    let pod = entry.pod();
    let dirs = limits::disk_volumes(spec_of(&pod));
    let volumes: Vec<_> = {
        let located = entry.located.lock();
        dirs.into_iter()
            .filter_map(|name| Some((name.to_owned(), located.get(name)?.path.clone())))
            .collect()
    };
    let logs = context.log_dir(&pod);
    let names: Vec<String> = view(&pod)
        .filter(|view| view.kind != Kind::Ephemeral)
        .map(|view| view.name.to_owned())
        .collect();
    let mut usage = LocalUsage::default();
    for name in &names {
        let id = entry
            .machine
            .lock()
            .container_id(name, false)
            .map(str::to_owned);
        let Some(id) = id else { continue };
        let layer = context.runtime.writable_usage(&ContainerId(id)).await;
        usage
            .containers
            .insert(name.clone(), layer.unwrap_or_default());
    }
    let measured = tokio::task::spawn_blocking(move || {
        let volumes: Vec<_> = volumes
            .into_iter()
            .map(|(name, path)| (name, measure::below(&path)))
            .collect();
        let logs: Vec<_> = names
            .into_iter()
            .map(|name| (measure::below(&logs.join(&name)), name))
            .collect();
        (volumes, logs)
    });
    if let Ok((volumes, logs)) = measured.await {
        usage.volumes.extend(volumes);
        for (logs, name) in logs {
            let whole = usage.containers.entry(name).or_default();
            *whole = *whole + logs;
        }
    }
    usage
}

/// Removes the images that no container uses.
async fn reclaim(context: &Context) {
    match context.images.prune(&[]).await {
        Ok(gone) => tracing::info!(
            images = gone.len(),
            "the disk is nearly full: images removed"
        ),
        Err(error) => {
            tracing::warn!(%error, "the disk is nearly full, and images cannot be removed")
        }
    }
}

/// Evicts the one pod that relieves the node most rightly.
async fn relieve(context: &Arc<Context>, table: &Table, shortage: Shortage, pace: Pace) {
    let mut candidates = Vec::new();
    for entry in table.all() {
        if !entry.machine.lock().occupies() {
            continue;
        }
        let stats = context.runtime.sandbox_stats(&entry.uid).await;
        let stats = stats.unwrap_or_default();
        let disk = match shortage {
            Shortage::Disk { .. } | Shortage::Inodes { .. } => {
                local_usage(context, &entry).await.total()
            }
            _ => DiskUsage::default(),
        };
        candidates.push((
            Candidate {
                pod: entry.pod(),
                memory_bytes: stats.memory_working_set_bytes,
                disk,
                pids: stats.pids,
            },
            entry,
        ));
    }
    let ranked: Vec<&Candidate> = candidates.iter().map(|(candidate, _)| candidate).collect();
    let Some(chosen) = pressure::choose(shortage, &ranked) else {
        return tracing::warn!(%shortage, "the node is short, and no pod may be evicted for it");
    };
    let message = pressure::message(shortage, ranked[chosen]);
    let eviction = match pace {
        Pace::AtOnce => Eviction::at_once(message),
        Pace::Within(grace_s) => Eviction::within(message, grace_s),
    };
    evict(&candidates[chosen].1, eviction).await;
}
