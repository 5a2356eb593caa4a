//! Leaving the machine as it was.

use std::path::Path;

use crate::links::{self, node, pod, sysctl};
use crate::nat;

/// Why something of ours is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Links, routes or kernel settings.
    #[error(transparent)]
    Links(#[from] links::Error),
    /// nftables.
    #[error("cannot remove the service maps: {0}")]
    Maps(#[from] peapod_nft::Error),
}

/// Removes every link, route, rule and map of this agent, and puts the kernel settings back that
/// it recorded in `state_dir`. Pods that still run lose their network. Repeating it is fine.
pub fn cleanup(state_dir: &Path) -> Result<(), Error> {
    let (connected, unfinished) = pod::list()?;
    for link in connected.into_iter().map(|one| one.link).chain(unfinished) {
        pod::delete(&link)?;
    }
    node::remove_routes()?;
    nat::remove()?;
    Ok(sysctl::restore(state_dir)?)
}
