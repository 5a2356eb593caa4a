//! The task that writes exports when the engine wants one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::entry::Meta;
use crate::export::{self, ExportError};
use crate::revision::Revision;
use crate::watch::Feed;
use crate::world::World;

/// How long to wait after an export failed, most likely for want of room on the disk.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Writes an export whenever `due` wakes it and the engine still wants one, until it is stopped:
/// between exports, never within one.
pub(crate) async fn run<M: Meta>(
    engine: Arc<dyn Engine>,
    feed: Arc<Feed<M>>,
    due: Arc<Notify>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let pause = match engine.export_due() {
            None => None,
            Some(dir) => match export_into(&dir, &engine, &feed).await {
                Ok(()) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot export; trying again in a minute");
                    Some(RETRY_AFTER)
                }
            },
        };
        let woken = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => due.notified().await,
            }
        };
        stop.run_until_cancelled(woken).await;
    }
}

async fn export_into<M: Meta>(
    dir: &Path,
    engine: &Arc<dyn Engine>,
    feed: &Feed<M>,
) -> Result<(), ExportError> {
    let world = feed.world();
    let path = export::path_of(dir, world.revision);
    let revision = write(world, path).await?;
    tracing::debug!(%revision, dir = %dir.display(), "exported");
    engine.exported(revision);
    Ok(())
}

/// Writes `world` to `path`, on a thread that may block, and returns its revision.
pub(crate) async fn write<M: Meta>(
    world: Arc<World<M>>,
    path: PathBuf,
) -> Result<Revision, ExportError> {
    let at = path.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let entries = world.entries().map(|entry| entry.record());
        export::write(&path, world.revision, world.len(), entries).map(|()| world.revision)
    });
    writing.await.unwrap_or_else(|panic| {
        let source = std::io::Error::other(panic);
        Err(ExportError::Io {
            action: "write",
            path: at,
            source,
        })
    })
}
