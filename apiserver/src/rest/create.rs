//! POST: a new object.

use http::StatusCode;
use peapod_store::{CommitError, Compare, Txn};
use serde_json::Value;

use super::body_object;
use super::call::{Call, Reply};
use super::write::{ATTEMPTS, Write, Written, commit_failed};
use super::{options, respond};
use crate::admission::{Operation, quota};
use crate::api::Api;
use crate::random;
use crate::registry::{object_meta, value};
use crate::status::{Result, Status};

/// How many generated names are tried.
const NAMES_MAX: usize = 8;

/// Answers a POST to a collection.
pub async fn create(api: &Api, call: &Call) -> Result<Reply> {
    let options = options::of(call)?;
    let (mut object, mut warnings) = body_object::object(call, (&*call.resource).into())?;
    body_object::place(call, &mut object)?;
    let manager = super::fields::manager(&options, call);
    let write = Write::asked(api, call, &options, &manager);
    let written = insert(&write, object).await?;
    warnings.extend(written.warnings);
    let mut reply = respond::object(api, call, StatusCode::CREATED, written.bytes)?;
    reply.warnings = warnings;
    Ok(reply)
}

/// Takes a decoded object through defaults, admission and validation into the store.
pub async fn insert(write: &Write<'_>, object: Value) -> Result<Written> {
    let base = value::text(&object, "metadata.generateName").to_owned();
    let generate = value::text(&object, "metadata.name").is_empty() && !base.is_empty();
    if !generate {
        let name = value::text(&object, "metadata.name").to_owned();
        return insert_named(
            &Write {
                name: &name,
                ..*write
            },
            object,
        )
        .await;
    }
    let mut last = None;
    for _ in 0..NAMES_MAX {
        let name = object_meta::generated_name(&base, &random::suffix());
        let mut named = object.clone();
        value::set(&mut named, "metadata.name", name.as_str());
        match insert_named(
            &Write {
                name: &name,
                ..*write
            },
            named,
        )
        .await
        {
            Err(status) if status.reason == "AlreadyExists" => last = Some(name),
            outcome => return outcome,
        }
    }
    let name = last.unwrap_or_default();
    Err(Status::name_exhausted(
        write.resource.kind.group_resource(),
        &name,
    ))
}

async fn insert_named(write: &Write<'_>, mut object: Value) -> Result<Written> {
    let kind = &write.resource.kind;
    if !value::text(&object, "metadata.resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let now = write.api.now();
    write.default(&mut object);
    if !write.apply {
        value::remove(&mut object, "metadata.managedFields");
    }
    // The client owns what it sent and its defaults, not what the server adds from here on.
    write.track(&mut object, None, now);
    write.admit(Operation::Create, &mut object, None).await?;
    object_meta::stamp_new(kind, &mut object, &random::uid(), now);
    if kind.status == crate::registry::StatusRule::Separate {
        // As its schema has it: `{}` for most.
        let empty = peapod_schema::default::of_field("status", &write.resource.schema);
        value::set_or_remove(&mut object, "status", empty);
    }
    kind.rules.prepare_create(&mut object);
    // What is claimed may be taken meanwhile, and a quota be charged by another server: the next
    // turn begins anew from the same object.
    let contended = kind.rules.has_claims() || quota::is_limited(write);
    let turns = if contended { ATTEMPTS } else { 1 };
    for turn in 1..=turns {
        let mut candidate = match turn == turns {
            true => object.take(),
            false => object.clone(),
        };
        write.validate_new(&mut candidate)?;
        write.judge(Operation::Create, &candidate, None).await?;
        if let Some(written) = commit(write, candidate).await? {
            return Ok(written);
        }
    }
    Err(Status::unavailable(
        "what the object claims keeps being taken; try again",
    ))
}

/// Stores a new object; `None` when a claim was taken meanwhile.
async fn commit(write: &Write<'_>, object: Value) -> Result<Option<Written>> {
    let exists = || {
        let resource = write.resource.kind.group_resource();
        Err(Status::already_exists(resource, write.name))
    };
    let key = write.key(write.name)?;
    let draft = write.draft(&object)?;
    let warnings = write.resource.kind.rules.warnings(&object);
    if write.options.dry_run {
        return match write.api.store.get(&key) {
            Some(_) => exists(),
            None => {
                // What a quota refuses, it refuses here too.
                write.claim(Txn::new(), Some(&object), None)?;
                let bytes = serde_json::to_vec(&object).map_err(Status::internal)?;
                Ok(Some(Written {
                    bytes: bytes.into(),
                    warnings,
                    ..Written::default()
                }))
            }
        };
    }
    let _turn = write.api.quota_turns.take(write).await;
    let txn = Txn::new().put(key.clone(), Compare::Absent, draft);
    let txn = write.claim(txn, Some(&object), None)?;
    // Thousands of pieces, which now are in this core's caches, and not after the wait for the disk.
    drop(object);
    match write.api.store.commit(txn).await {
        Ok(committed) => Ok(Some(Written {
            bytes: committed.value(&key).cloned().unwrap_or_default(),
            warnings,
            ..Written::default()
        })),
        Err(CommitError::Conflict { key: taken, .. }) if taken == key => exists(),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(fault) => Err(commit_failed(fault)),
    }
}
