//! DELETE of an object: finalizers, grace periods, propagation, preconditions.
//!
//! [`step`] decides, without IO, what a deletion does to an object: nothing, mark it, or remove
//! it; the loop around it commits that against the revision that was read.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use peapod_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use peapod_store::{CommitError, Compare, Txn};
use serde_json::Value;

use super::body_object;
use super::call::{Call, Reply};
use super::negotiate::Encoding;
use super::query::{self, Query, WriteOptions};
use super::write::{ATTEMPTS, Write, Written, commit_failed};
use super::{respond, table};
use crate::admission::Operation;
use crate::api::Api;
use crate::registry::{Resource, object_meta, value};
use crate::status::{self, Result, Status};

/// What becomes of what the deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes it afterwards.
    Background,
    /// It is deleted first.
    Foreground,
    /// It stays.
    Orphan,
}

/// The options of a deletion, from the query and the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that the object gets; `None` leaves it to the kind.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of what it owns; `None` leaves it to the object's finalizers.
    pub propagation: Option<Propagation>,
    /// The UID that the object must have.
    pub uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub resource_version: Option<String>,
    /// Everything but the commit.
    pub dry_run: bool,
}

/// What a deletion does to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: it is being deleted already.
    Pending,
    /// It is marked, and goes later.
    Mark(Value),
    /// It goes now.
    Remove(Value),
}

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
        let (new, deleted) = match step(resource, &old, options, write.api.now()) {
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

/// Decides what a deletion does to an object.
pub fn step(resource: &Resource, old: &Value, options: &DeleteOptions, now: Timestamp) -> Step {
    let rules = &resource.kind.rules;
    let mut new = old.clone();
    if let Some(propagation) = options.propagation.or_else(|| by_kind(resource, old)) {
        propagate(&mut new, propagation);
    }
    let grace = match deletion_of(old) {
        // Only a shorter grace period may follow the first; one that is not known ends it.
        Some(None) => 0,
        Some(Some(left)) => match options.grace_period_seconds {
            Some(asked) if asked < left => {
                shorten(&mut new, old, left, asked);
                asked
            }
            _ if is_due(resource, &new) => 0,
            _ => return pending(new, old),
        },
        None => {
            let grace = rules
                .grace_period(old, options.grace_period_seconds)
                .unwrap_or(0);
            mark(&mut new, grace, now);
            rules.mark_deleting(&mut new);
            grace
        }
    };
    match grace == 0 && !rules.is_held(&new) && !has_finalizers(&new) {
        true => Step::Remove(new),
        false if new == *old => Step::Pending,
        false => Step::Mark(new),
    }
}

fn pending(new: Value, old: &Value) -> Step {
    match new == *old {
        true => Step::Pending,
        false => Step::Mark(new),
    }
}

/// The propagation that nobody asked for.
fn by_kind(resource: &Resource, old: &Value) -> Option<Propagation> {
    let warning = resource.kind.orphans?;
    let mut finalizers = value::list(old, "metadata.finalizers").iter();
    if deletion_of(old).is_some() || finalizers.any(|one| one == FINALIZER_FOREGROUND) {
        return None;
    }
    if !warning.is_empty() {
        crate::warnings::add(warning.to_owned());
    }
    Some(Propagation::Orphan)
}

/// The grace period of a deletion under way: `None` when there is no deletion, `Some(None)` when
/// its grace period is not recorded.
fn deletion_of(object: &Value) -> Option<Option<i64>> {
    value::at(object, "metadata.deletionTimestamp")?;
    Some(value::integer(
        object,
        "metadata.deletionGracePeriodSeconds",
    ))
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let at = now + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    value::set(object, "metadata.deletionTimestamp", object_meta::time(at));
    value::set(object, "metadata.deletionGracePeriodSeconds", grace);
    if let Some(generation) = value::integer(object, "metadata.generation") {
        value::set(object, "metadata.generation", generation + 1);
    }
}

fn shorten(new: &mut Value, old: &Value, left: i64, asked: i64) {
    let asked = asked.max(0);
    let due: Option<Timestamp> = value::text(old, "metadata.deletionTimestamp").parse().ok();
    if let Some(due) = due {
        let sooner = Duration::from_secs(u64::try_from(left - asked).unwrap_or(0));
        let at = object_meta::time(due - sooner);
        value::set(new, "metadata.deletionTimestamp", at);
    }
    value::set(new, "metadata.deletionGracePeriodSeconds", asked);
}

fn propagate(object: &mut Value, propagation: Propagation) {
    let mut finalizers = value::list(object, "metadata.finalizers").to_vec();
    finalizers.retain(|one| one != FINALIZER_ORPHAN && one != FINALIZER_FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FINALIZER_FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(FINALIZER_ORPHAN.into()),
    }
    let finalizers = (!finalizers.is_empty()).then_some(Value::Array(finalizers));
    value::set_or_remove(object, "metadata.finalizers", finalizers);
}

fn has_finalizers(object: &Value) -> bool {
    !value::list(object, "metadata.finalizers").is_empty()
}

/// Whether an object that is being deleted has nothing left to wait for.
pub fn is_due(resource: &Resource, object: &Value) -> bool {
    matches!(deletion_of(object), Some(None | Some(0)))
        && !has_finalizers(object)
        && !resource.kind.rules.is_held(object)
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

/// Reads the options of a deletion: from the body, or where there is none from the query.
pub fn options(api: &Api, call: &Call) -> Result<DeleteOptions> {
    let body = match call.body.is_empty() {
        true => None,
        false => {
            let encoding = Encoding::of_body(&call.headers)?;
            let schema = api.registry.schema("meta", "v1", "DeleteOptions");
            let schema = schema.unwrap_or_else(|| call.resource.schema.clone());
            Some(body_object::decode(&call.body, encoding, &schema)?.value)
        }
    };
    parse_options(&call.query, body.as_ref())
}

/// Reads the options of a deletion, out of a `DeleteOptions` and the query.
pub fn parse_options(query: &Query, body: Option<&Value>) -> Result<DeleteOptions> {
    let empty = Value::Null;
    let body = body.unwrap_or(&empty);
    let text = |path| match value::text(body, path) {
        "" => None,
        found => Some(found.to_owned()),
    };
    let in_body = value::list(body, "dryRun").iter().filter_map(Value::as_str);
    let grace = match value::integer(body, "gracePeriodSeconds") {
        Some(seconds) => Some(seconds),
        None => query.number("gracePeriodSeconds")?,
    };
    let policy =
        text("propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_owned());
    let orphan = match value::at(body, "orphanDependents").and_then(Value::as_bool) {
        Some(orphan) => Some(orphan),
        None if query.get("orphanDependents").is_empty() => None,
        None => Some(query.flag("orphanDependents")?),
    };
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation: propagation(&policy, orphan)?,
        uid: text("preconditions.uid"),
        resource_version: text("preconditions.resourceVersion"),
        dry_run: query::dry_run(in_body.chain(query.all("dryRun")))?,
    })
}

fn propagation(policy: &str, orphan: Option<bool>) -> Result<Option<Propagation>> {
    Ok(match (policy, orphan) {
        ("", None) => None,
        ("", Some(true)) => Some(Propagation::Orphan),
        ("", Some(false)) => Some(Propagation::Background),
        ("Background", None) => Some(Propagation::Background),
        ("Foreground", None) => Some(Propagation::Foreground),
        ("Orphan", None) => Some(Propagation::Orphan),
        (other, None) => {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            )));
        }
        (_, Some(_)) => {
            return Err(Status::bad_request(
                "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use serde_json::json;

    fn decide(old: Value, options: &DeleteOptions) -> Step {
        decide_of("", "pods", old, options)
    }

    fn decide_of(group: &str, plural: &str, old: Value, options: &DeleteOptions) -> Step {
        let registry = Registry::builtin().unwrap();
        let resource = registry.find(group, "v1", plural).unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        step(&resource, &old, options, now)
    }

    #[test]
    fn jobs_and_replication_controllers_leave_their_pods_unless_told_otherwise() {
        let [none, background] =
            [None, Some(Propagation::Background)].map(|propagation| DeleteOptions {
                propagation,
                ..Default::default()
            });
        for (group, plural) in [("batch", "jobs"), ("", "replicationcontrollers")] {
            let Step::Mark(marked) = decide_of(group, plural, json!({"spec": {}}), &none) else {
                panic!("expected a mark");
            };
            assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
            let told = decide_of(group, plural, json!({"spec": {}}), &background);
            assert!(matches!(told, Step::Remove(_)));
            let waiting = json!({"metadata": {"finalizers": ["foregroundDeletion"]}});
            let Step::Mark(marked) = decide_of(group, plural, waiting, &none) else {
                panic!("expected a mark");
            };
            assert_eq!(
                marked["metadata"]["finalizers"],
                json!(["foregroundDeletion"])
            );
        }
        let set = decide_of("apps", "replicasets", json!({"spec": {}}), &none);
        assert!(matches!(set, Step::Remove(_)));
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..Default::default()
        }
    }

    #[test]
    fn a_running_pod_gets_its_grace() {
        let pod = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}});
        let Step::Mark(marked) = decide(pod.clone(), &DeleteOptions::default()) else {
            panic!("expected a mark");
        };
        assert_eq!(
            marked["metadata"],
            json!({"deletionTimestamp": "2023-11-14T22:13:30Z", "deletionGracePeriodSeconds": 10})
        );
        assert_eq!(
            decide(marked.clone(), &DeleteOptions::default()),
            Step::Pending
        );
        assert_eq!(decide(marked.clone(), &grace(20)), Step::Pending);
        let Step::Mark(shorter) = decide(marked.clone(), &grace(4)) else {
            panic!("expected a shorter grace");
        };
        assert_eq!(
            shorter["metadata"]["deletionTimestamp"],
            "2023-11-14T22:13:24Z"
        );
        assert!(matches!(decide(marked, &grace(0)), Step::Remove(_)));
        assert!(matches!(decide(pod, &grace(0)), Step::Remove(_)));
    }

    #[test]
    fn a_pod_without_a_node_goes_at_once() {
        let pod = json!({"spec": {}});
        assert!(matches!(
            decide(pod, &DeleteOptions::default()),
            Step::Remove(_)
        ));
    }

    #[test]
    fn finalizers_hold() {
        let pod = json!({"metadata": {"finalizers": ["a/b"]}, "spec": {}});
        let Step::Mark(marked) = decide(pod, &DeleteOptions::default()) else {
            panic!("expected a mark");
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(decide(marked, &DeleteOptions::default()), Step::Pending);
    }

    #[test]
    fn propagation_is_a_finalizer() {
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..Default::default()
        };
        let Step::Mark(marked) = decide(json!({"spec": {}}), &foreground) else {
            panic!("expected a mark");
        };
        assert_eq!(
            marked["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        let background = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..Default::default()
        };
        assert!(matches!(decide(marked, &background), Step::Remove(_)));
    }

    #[test]
    fn options_from_body_and_query() {
        let query = Query::of(Some("gracePeriodSeconds=3&propagationPolicy=Orphan"));
        let options = parse_options(&query, None).unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        let body = json!({"preconditions": {"uid": "u"}, "propagationPolicy": "x"});
        assert!(parse_options(&Query::default(), Some(&body)).is_err());
    }
}
