//! DELETE of an object: finalizers, grace periods, propagation, preconditions.
//!
//! [`step`] decides, without IO, what a deletion does to an object; the loop around it commits
//! that against the revision that was read.

mod options;
mod step;

pub use options::{DeleteOptions, Propagation, options, parse_options};
pub use step::{Step, decide, is_due};

use http::StatusCode;
use peapod_store::{CommitError, Compare, Txn};
use serde_json::Value;

use super::call::{Call, Reply};
use super::query::WriteOptions;
use super::write::{ATTEMPTS, Write, Written, commit_failed};
use super::{respond, table};
use crate::admission::Operation;
use crate::api::Api;
use crate::registry::value;
use crate::remarks;
use crate::status::{self, Result, Status};

/// Answers a DELETE of an object.
pub async fn delete(api: &Api, call: &Call) -> Result<Reply> {
    let options = options(api, call)?;
    let write_options = WriteOptions {
        dry_run: options.dry_run,
        ..WriteOptions::default()
    };
    let write = Write::asked(api, call, &write_options, "");
    let written = remove(&write, &options).await?;
    let graceful = call.kind().rules.returns_deleted();
    if written.deleted && !graceful {
        let object = table::decode(&call.resource, &written.bytes)?;
        let kind = call.kind().group_resource();
        let uid = value::text(&object, "metadata.uid");
        let done = status::success(kind, &call.target.name, uid);
        return respond::value(api, call, StatusCode::OK, done);
    }
    let waits = options
        .propagation
        .is_some_and(|p| p != Propagation::Orphan);
    let code = match !written.deleted && waits {
        true => StatusCode::ACCEPTED,
        false => StatusCode::OK,
    };
    respond::object(api, call, code, written.bytes)
}

/// Deletes an object, or begins to.
pub async fn remove(write: &Write<'_>, options: &DeleteOptions) -> Result<Written> {
    let resource = write.resource;
    for _ in 0..ATTEMPTS {
        let key = write.key(write.name)?;
        let entry = write.api.store.get(&key).ok_or_else(|| write.not_found())?;
        let old = table::decode(resource, &entry.value)?;
        check_preconditions(write, options, &old)?;
        // Mutating webhooks are asked too: they may refuse, though there is nothing to change.
        let mut shown = old.clone();
        write
            .admit(Operation::Delete, &mut shown, Some(&old))
            .await?;
        write.judge(Operation::Delete, &old, Some(&old)).await?;
        let decision = decide(resource, &old, options, write.api.now());
        if let Some(warning) = decision.warning {
            remarks::warn(warning.to_owned());
        }
        let (new, deleted) = match decision.step {
            Step::Pending => {
                return Ok(Written {
                    bytes: entry.value.clone(),
                    ..Written::default()
                });
            }
            Step::Mark(new) => (new, false),
            Step::Remove(new) => (new, true),
        };
        let draft = write.draft(&new)?;
        if write.options.dry_run {
            return Ok(Written {
                bytes: draft.finish(entry.modified),
                deleted,
                ..Written::default()
            });
        }
        let compare = Compare::At(entry.modified);
        let _turn = write.api.quota_turns.take(write).await;
        let txn = match deleted {
            true => write.claim(Txn::new().delete(key, compare), None, Some(&old))?,
            false => Txn::new().put(key, compare, draft.clone()),
        };
        match write.api.store.commit(txn).await {
            Ok(committed) => {
                return Ok(Written {
                    bytes: draft.finish(committed.revision()),
                    deleted,
                    ..Written::default()
                });
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(fault) => return Err(commit_failed(fault)),
        }
    }
    Err(write.modified())
}

fn check_preconditions(write: &Write<'_>, options: &DeleteOptions, old: &Value) -> Result<()> {
    let resource = write.resource.kind.group_resource();
    let refuse = |what: &str, asked: &str, present: &str| {
        let why = format!(
            "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {present}"
        );
        Err(Status::conflict(resource, write.name, why))
    };
    for (what, asked, path) in [
        ("UID", &options.uid, "metadata.uid"),
        (
            "ResourceVersion",
            &options.resource_version,
            "metadata.resourceVersion",
        ),
    ] {
        let present = value::text(old, path);
        if let Some(asked) = asked
            && asked != present
        {
            return refuse(what, asked, present);
        }
    }
    Ok(())
}
