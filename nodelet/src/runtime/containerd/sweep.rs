//! Sweeping up: what containerd has in our namespace and nobody knows.
//!
//! A crash between two steps of making a container leaves a snapshot or a record that no caller has
//! heard of. Whatever is being made at the moment is left alone: each suspect is looked at
//! again under its lock.

use std::collections::HashSet;

use containerd_client::services::v1::ListContainersRequest;
use containerd_client::services::v1::snapshots::{Kind, ListSnapshotsRequest};

use super::Shared;
use super::client::SNAPSHOTTER;
use crate::runtime::{ContainerId, Result};

impl Shared {
    /// Removes containers and their file systems that have no record.
    pub(super) async fn sweep(&self) -> Result<()> {
        for id in self.suspects().await? {
            let lock = self.lock(&id).await;
            let unknown = self.states.of(&id).record()?.is_none() && !self.layers.waits(&id);
            drop(lock);
            if unknown {
                tracing::info!(container.id = %id, "removing what a crash left of a container");
                self.remove(&id).await?;
            }
        }
        Ok(())
    }

    /// Containers and writable snapshots without a record, and directories without one.
    async fn suspects(&self) -> Result<HashSet<ContainerId>> {
        let mut found: HashSet<ContainerId> = self.states.ids().into_iter().collect();
        let request = ListContainersRequest {
            filters: Vec::new(),
        };
        let mut containers = self.client.containers();
        let listed = self
            .client
            .call("listing containers", containers.list(request))
            .await?;
        found.extend(
            listed
                .containers
                .into_iter()
                .map(|container| ContainerId(container.id)),
        );

        let what = "listing snapshots";
        let request = ListSnapshotsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            filters: Vec::new(),
        };
        let mut stream = self
            .client
            .call(what, self.client.snapshots().list(request))
            .await?;
        while let Some(part) = stream
            .message()
            .await
            .map_err(|s| self.client.error(what, &s))?
        {
            let writable = part
                .info
                .into_iter()
                .filter(|info| info.kind() == Kind::Active);
            // Others are layers on their way, which have leases.
            let ours = writable.filter(|info| info.name.len() == ContainerId::LENGTH);
            found.extend(ours.map(|info| ContainerId(info.name)));
        }
        let mut suspects = HashSet::new();
        for id in found {
            if self.states.of(&id).record()?.is_none() {
                suspects.insert(id);
            }
        }
        Ok(suspects)
    }
}
