//! PUT, and the loop under every change of an existing object: read, change, check, commit
//! against the revision that was read; a lost race begins anew.

use http::StatusCode;
use peapod_store::{CommitError, Compare, Txn};
use serde_json::Value;

use super::body_object;
use super::call::{Call, Reply};
use super::write::{ATTEMPTS, Write, Written, commit_failed};
use super::{create, delete, fields, options, respond, table};
use crate::admission::Operation;
use crate::api::Api;
use crate::registry::{FieldError, FieldErrors, StatusRule, Subresource, object_meta, value};
use crate::status::{Result, Status};
use crate::storage::Entry;

/// Answers a PUT of an object, its status, or what else is written as a whole.
pub async fn update(api: &Api, call: &Call) -> Result<Reply> {
    let options = options::of(call)?;
    let (mut object, warnings) = body_object::object(call, (&*call.resource).into())?;
    body_object::place(call, &mut object)?;
    body_object::name(call, &mut object)?;
    let manager = fields::manager(&options, call);
    let write = Write::asked(api, call, &options, &manager);
    demand_revision(&write, &object)?;
    let (code, written) = match modify(&write, |_| Ok(object.clone())).await {
        Err(status) if status.code == 404 && may_create(call) => {
            (StatusCode::CREATED, create::insert(&write, object).await?)
        }
        outcome => (StatusCode::OK, outcome?),
    };
    let mut reply = respond::object(api, call, code, written.bytes)?;
    reply.warnings = warnings;
    Ok(reply)
}

fn may_create(call: &Call) -> bool {
    call.kind().create_on_update && call.subresource.is_none()
}

fn demand_revision(write: &Write<'_>, object: &Value) -> Result<()> {
    let given = value::text(object, "metadata.resourceVersion");
    if write.resource.kind.unconditional_update || !given.is_empty() {
        return Ok(());
    }
    let mut errors = FieldErrors::new();
    errors.push(FieldError::invalid(
        "metadata.resourceVersion",
        0,
        "must be specified for an update",
    ));
    write.settle(object, errors)
}

/// Changes an existing object. `change` makes the new object of the old one; it runs again when
/// another write came between. An object that it returns with a resourceVersion or a UID that
/// are not the present ones is refused.
pub async fn modify(
    write: &Write<'_>,
    mut change: impl FnMut(&Value) -> Result<Value> + Send,
) -> Result<Written> {
    for _ in 0..ATTEMPTS {
        let key = write.key(write.name)?;
        let entry = write.api.store.get(&key).ok_or_else(|| write.not_found())?;
        let old = table::decode(write.resource, &entry.value)?;
        let mut new = change(&old)?;
        check_preconditions(write, &new, &old)?;
        prepare(write, &mut new, &old);
        // The client owns what it changed, not what admission and allocation add.
        write.track(&mut new, Some(&old), write.api.now());
        write.admit(Operation::Update, &mut new, Some(&old)).await?;
        finish(write, &mut new, &old).await?;
        // A patch carries on the version that it was made of. So who asked for a version is told of
        // a conflict when the next turn finds another one.
        if let Some(written) = commit(write, &entry, new, old).await? {
            return Ok(written);
        }
    }
    Err(write.modified())
}

/// Changes what only the server writes, as a binding does: there is nothing of the user's in it to
/// be admitted, validated or owned, and it is no new generation.
pub async fn assign(
    write: &Write<'_>,
    change: impl Fn(&Value) -> Result<Value> + Send,
) -> Result<Written> {
    for _ in 0..ATTEMPTS {
        let key = write.key(write.name)?;
        let entry = write.api.store.get(&key).ok_or_else(|| write.not_found())?;
        let old = table::decode(write.resource, &entry.value)?;
        let new = change(&old)?;
        if let Some(written) = commit(write, &entry, new, old).await? {
            return Ok(written);
        }
    }
    Err(write.modified())
}

/// Refuses a new object that names a version or a uid which are not those it would replace.
fn check_preconditions(write: &Write<'_>, new: &Value, old: &Value) -> Result<()> {
    let field = |object, path| value::text(object, path);
    let (given, present) = (field(new, "metadata.uid"), field(old, "metadata.uid"));
    if !given.is_empty() && given != present {
        let resource = write.resource.kind.group_resource();
        return Err(Status::conflict(
            resource,
            write.name,
            format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {present}"
            ),
        ));
    }
    let path = "metadata.resourceVersion";
    match field(new, path) {
        "" | "0" => Ok(()),
        given if given == field(old, path) => Ok(()),
        _ => Err(write.modified()),
    }
}

/// Makes the new object what the subresource may write, with the server's fields in place.
fn prepare(write: &Write<'_>, new: &mut Value, old: &Value) {
    let kind = &write.resource.kind;
    match write.subresource {
        "" => {
            write.default(new);
            if kind.status != StatusRule::Plain {
                value::set_or_remove(new, "status", old.get("status").cloned());
            }
            object_meta::stamp_update(kind, new, old);
            kind.rules.prepare_update(new, old);
        }
        "status" => {
            keep_all_but(new, old, &["metadata", "status"]);
            write.default(new);
            let owners = value::at(old, "metadata.ownerReferences").cloned();
            value::set_or_remove(new, "metadata.ownerReferences", owners);
            object_meta::stamp_update(kind, new, old);
            kind.rules.prepare_status(new, old);
        }
        "finalize" => {
            let finalizers = value::at(new, "spec.finalizers").cloned();
            let meta = new["metadata"].take();
            *new = old.clone();
            let kept = meta.get("finalizers").cloned();
            value::set_or_remove(new, "metadata.finalizers", kept);
            value::set_or_remove(new, "spec.finalizers", finalizers);
        }
        "ephemeralcontainers" => {
            let field = "spec.ephemeralContainers";
            let containers = value::at(new, field).cloned();
            *new = old.clone();
            value::set_or_remove(new, field, containers);
            write.default(new);
            object_meta::stamp_update(kind, new, old);
        }
        "approval" => {
            let field = "status.conditions";
            let verdict = value::at(new, field).cloned();
            let meta = new["metadata"].take();
            *new = old.clone();
            new["metadata"] = meta;
            value::set_or_remove(new, field, verdict);
            object_meta::stamp_update(kind, new, old);
        }
        "resize" => {
            let wanted = new["spec"].take();
            *new = old.clone();
            for field in ["containers", "initContainers"] {
                resize(&mut new["spec"], &wanted, field);
            }
            if let Some(whole) = value::at(&wanted, "resources") {
                new["spec"]["resources"] = whole.clone();
            }
            write.default(new);
            object_meta::stamp_update(kind, new, old);
        }
        // Other subresources make their change from the old object themselves.
        _ => {
            write.default(new);
            object_meta::stamp_update(kind, new, old);
        }
    }
    let present = value::at(old, "metadata.resourceVersion").cloned();
    value::set_or_remove(new, "metadata.resourceVersion", present);
}

/// Takes over the resources of the containers that keep their names.
fn resize(spec: &mut Value, wanted: &Value, field: &str) {
    let wanted = value::list(wanted, field);
    let containers = spec.get_mut(field).and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let Some(sized) = wanted.iter().find(|one| one["name"] == container["name"]) else {
            continue;
        };
        for part in ["resources", "resizePolicy"] {
            value::set_or_remove(container, part, sized.get(part).cloned());
        }
    }
}

/// Makes the new object the old one but for some fields.
fn keep_all_but(new: &mut Value, old: &Value, written: &[&str]) {
    let mut kept = old.clone();
    for field in written {
        value::set_or_remove(&mut kept, field, new.get(*field).cloned());
    }
    *new = kept;
}

async fn finish(write: &Write<'_>, new: &mut Value, old: &Value) -> Result<()> {
    write.validate_update(new, old)?;
    write.judge(Operation::Update, new, Some(old)).await
}

/// Stores the changed object; `None` when the object or a claim changed meanwhile.
async fn commit(
    write: &Write<'_>,
    entry: &Entry,
    new: Value,
    old: Value,
) -> Result<Option<Written>> {
    if new == old {
        return Ok(Some(Written {
            bytes: entry.value.clone(),
            ..Written::default()
        }));
    }
    let deleted = delete::is_due(write.resource, &new);
    if write.options.dry_run {
        if !deleted {
            write.claim(Txn::new(), Some(&new), Some(&old))?;
        }
        return Ok(Some(Written {
            bytes: serde_json::to_vec(&new).map_err(Status::internal)?.into(),
            deleted,
            ..Written::default()
        }));
    }
    let key = entry.key.clone();
    let draft = write.draft(&new)?;
    let compare = Compare::At(entry.modified);
    let _turn = write.api.quota_turns.take(write).await;
    let txn = match deleted {
        true => write.claim(Txn::new().delete(key.clone(), compare), None, Some(&old))?,
        false => write.claim(
            Txn::new().put(key.clone(), compare, draft.clone()),
            Some(&new),
            Some(&old),
        )?,
    };
    // Their pieces are in this core's caches now, and not after the wait for the disk.
    drop((new, old));
    match write.api.store.commit(txn).await {
        Ok(committed) => Ok(Some(Written {
            bytes: draft.finish(committed.revision()),
            deleted,
            ..Written::default()
        })),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(fault) => Err(commit_failed(fault)),
    }
}

/// Whether a subresource is written as the whole object.
pub fn is_whole(subresource: &Subresource) -> bool {
    matches!(
        subresource,
        Subresource::Status
            | Subresource::Approval
            | Subresource::Finalize
            | Subresource::EphemeralContainers
            | Subresource::Resize
    )
}
