//! DELETE of a collection: everything that the selectors select, each by the rules of one
//! deletion.

use futures::{FutureExt, StreamExt, TryStreamExt};

use super::call::{Call, Reply};
use super::delete::{self, DeleteOptions};
use super::list;
use super::query::WriteOptions;
use super::write::Write;
use crate::api::Api;
use crate::status::Result;
use crate::storage::Entry;

/// How many objects are deleted at once.
const AT_ONCE: usize = 16;

/// Answers a DELETE of a collection; shows what was deleted, as it was.
pub async fn delete_collection(api: &Api, call: &Call) -> Result<Reply> {
    let options = delete::options(api, call)?;
    let page = list::page(api, call, &call.query.list_options()?).await?;
    let mut deletions = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        deletions.push(one(api, call, &options, entry).boxed());
    }
    let deletions: Vec<()> = futures::stream::iter(deletions)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    tracing::debug!(resource = %call.kind().group_resource(), count = deletions.len(), "deleted a collection");
    list::reply(api, call, page.whole()).await
}

async fn one(api: &Api, call: &Call, options: &DeleteOptions, entry: &Entry) -> Result<()> {
    let write_options = WriteOptions {
        dry_run: options.dry_run,
        ..WriteOptions::default()
    };
    let write = Write {
        namespace: entry.key.namespace(),
        name: entry.key.name(),
        ..Write::asked(api, call, &write_options, "")
    };
    match delete::remove(&write, options).await {
        // Someone else was faster.
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}
