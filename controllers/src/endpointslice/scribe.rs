//! Writes slices, and remembers what it wrote until the cache shows it, so that no slice is
//! created twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::pack::Changes;
use crate::common::Key;
use crate::shell::context::term;
use crate::shell::expectations::Expectations;
use crate::shell::{Context, Result, informer, write};

/// The writer of the slices of one loop.
pub(super) struct Scribe {
    /// What the loop was given.
    pub ctx: Context,
    expect: Expectations,
}

/// What the cache shows of a service's slices.
pub(super) enum Seen {
    /// All that was written.
    All(Vec<Arc<EndpointSlice>>),
    /// Not all: look again after this.
    Stale(Duration),
}

impl Scribe {
    /// One that has written nothing.
    pub fn new(ctx: &Context) -> Self {
        Self {
            ctx: ctx.clone(),
            expect: Expectations::default(),
        }
    }

    /// Forgets a service that is no longer this loop's.
    pub fn forget(&self, key: &Key) {
        self.expect.forget(key);
    }

    /// The slices of a service, those of others among them.
    pub fn slices(&self, key: &Key) -> Seen {
        let informer = &self.ctx.informers.endpoint_slices;
        let slices = informer.indexed(&term::of_service(key));
        let there = |uid: &str| {
            slices
                .iter()
                .any(|s| s.metadata.uid.as_deref() == Some(uid))
        };
        let (shown, now) = (informer.revision(), Instant::now());
        match self.expect.unmet(key, shown, there, now) {
            Some(wait) => Seen::Stale(wait),
            None => Seen::All(slices),
        }
    }

    /// New endpoints become visible before old slices go, so that a service never looks empty.
    pub async fn carry_out(&self, key: &Key, changes: Changes) -> Result<()> {
        let created = join_all(
            changes
                .create
                .iter()
                .map(|new| write::create(&self.ctx, new)),
        )
        .await;
        for created in created {
            match created {
                Ok(slice) => self.wrote(key, &slice),
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => return Err(error),
            }
        }
        let updates = changes.update.iter();
        let updates = updates.map(|(old, new)| write::update(&self.ctx, &**old, new));
        for updated in join_all(updates).await {
            if let Some(slice) = updated? {
                self.wrote(key, &slice);
            }
        }
        for slice in &changes.delete {
            let uid = slice.metadata.uid.as_deref().unwrap_or_default();
            self.expect.deleted(key, uid, Instant::now());
            write::delete::<EndpointSlice>(&self.ctx, &slice.metadata).await?;
        }
        Ok(())
    }

    fn wrote(&self, key: &Key, slice: &EndpointSlice) {
        self.expect
            .written(key, informer::revision(slice), Instant::now());
    }
}
