//! Who owns which fields: the name of the writer, and the record of what each write set.

use std::sync::LazyLock;

use jiff::Timestamp;
use peapod_schema::apply::{self, FieldSet, Writer};
use serde_json::Value;

use super::call::Call;
use super::query::WriteOptions;
use super::write::Write;
use crate::registry::{StatusRule, object_meta};

/// The longest name of a manager that is taken from a `User-Agent`.
const MANAGER_MAX: usize = 128;

/// What a write of the object leaves as it is, where `/status` writes the status.
static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&["status"]));
/// What a write of the status leaves as it is.
static ALL_BUT_STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&["spec"]));
static NOTHING: FieldSet = FieldSet::EMPTY;

/// The manager of a write: the one named, or else the first word of the `User-Agent`, up to its
/// slash.
pub fn manager(options: &WriteOptions, call: &Call) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    let name = call.user_agent().split('/').next().unwrap_or_default();
    let printable = name.chars().filter(|c| !c.is_control());
    printable.take(MANAGER_MAX).collect()
}

/// Runs `work` with the writer that a write is of.
pub fn as_writer<T>(write: &Write<'_>, now: Timestamp, work: impl FnOnce(Writer<'_>) -> T) -> T {
    let ignored = match (write.subresource, write.resource.kind.status) {
        ("status", _) => &*ALL_BUT_STATUS,
        ("", StatusRule::Separate | StatusRule::KeptOnCreate) => &*STATUS,
        _ => &NOTHING,
    };
    work(Writer {
        manager: write.manager,
        api_version: &write.resource.api_version,
        subresource: write.subresource,
        now: &object_meta::time(now),
        ignored,
    })
}

/// Records who owns the fields that a write (not an apply) set. A write that changes nothing
/// else changes no record.
pub fn track(write: &Write<'_>, new: &mut Value, old: Option<&Value>, now: Timestamp) {
    as_writer(write, now, |writer| {
        apply::update(old, new, &write.resource.schema, writer);
    });
}
