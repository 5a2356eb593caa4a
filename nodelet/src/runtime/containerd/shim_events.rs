//! The ends of containers, as the shim tells them.

use std::sync::Arc;
use std::time::Duration;

use peapod_shim::client::{Ends, Shim};
use tokio::task::JoinSet;

use super::Shared;
use super::by_shim::worded;
use crate::runtime::{ContainerId, Result};

/// Pause before a shim that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// Follows the ends for ever, and starts the shim again when it has died: the next one takes the
/// containers over.
pub(super) async fn run(shared: Arc<Shared>, shim: Arc<Shim>) {
    if let Err(error) = shim.renew(env!("CARGO_PKG_VERSION")).await {
        tracing::warn!(?error, "the shim cannot be reached");
    }
    loop {
        if let Err(error) = follow(&shared, &shim).await {
            tracing::warn!(%error, "lost the shim; containers run on");
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Returns an error when the shim goes away.
async fn follow(shared: &Arc<Shared>, shim: &Shim) -> Result<()> {
    let mut settling = JoinSet::new();
    let ends = shim
        .ends()
        .await
        .map_err(|error| worded("following the ends of containers", error))?;
    let mut ends = told(ends);
    loop {
        tokio::select! {
            end = ends.recv() => match end {
                Some(Some(id)) => shared.settle_soon(ContainerId(id), &mut settling),
                // Those that had ended have been told; what the shim does not know has ended, too.
                Some(None) => shared.settle_unknown(&mut settling).await?,
                None => return Err(crate::runtime::Error::Unavailable("it has ended".to_owned())),
            },
            Some(_) = settling.join_next() => {}
        }
    }
}

/// What is read must not be dropped half way: a task of its own reads.
fn told(mut ends: Ends) -> tokio::sync::mpsc::Receiver<Option<String>> {
    let (send, receive) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok(end) = ends.next().await {
            if send.send(end).await.is_err() {
                return;
            }
        }
    });
    receive
}
