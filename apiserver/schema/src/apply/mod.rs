//! Server-side apply, and the ownership of fields that it rests on.
//!
//! Every field of an object is owned by those who last set it, written down in
//! `metadata.managedFields`. Whoever updates an object takes the fields it changes. Whoever
//! applies a configuration says what it wants and nothing else: it owns the fields it names,
//! gives up those that it named before and no longer does (they go, unless someone else owns
//! them too), and is refused when it changes a field of someone else, unless it forces.
//!
//! The model is upstream's: lists are owned item by item or as a whole as the schema says, and
//! one version of a kind is one set of paths. See "Server-Side Apply" in Kubernetes' docs.

mod children;
mod compare;
mod conflict;
mod managers;
mod merge;
mod migrate;
mod set;
mod shape;

use std::sync::LazyLock;

use serde_json::{Map as JsonMap, Value};
use thiserror::Error;

use crate::default::skeleton;
use crate::graph::Schema;
use compare::{Changes, compare, fields_of};
pub use conflict::{Conflict, Conflicts};
use managers::{Entry, Manager, Managers, Operation};
pub use set::FieldSet;

/// Who writes, how and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager: the request's `fieldManager`, or what its user agent is called.
    pub manager: &'a str,
    /// The version that the object is written in, as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that is written to; empty for the object itself.
    pub subresource: &'a str,
    /// The time, in RFC 3339 with whole seconds.
    pub now: &'a str,
    /// What this way of writing leaves as it is (the status, when the object is written).
    pub ignored: &'a FieldSet,
}

/// An application is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// Others own what it would change: a conflict (409), with a cause for each field.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The configuration names managed fields: a bad request.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The configuration's lists cannot be told apart item by item: a bad request.
    #[error("failed to create typed patch object: {0}")]
    Malformed(String),
}

/// What no one owns: the system's own fields, and the name.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

impl Writer<'_> {
    fn as_manager(&self, operation: Operation) -> Manager {
        Manager {
            operation,
            name: self.manager.to_owned(),
            version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.api_version.to_owned(),
            },
            subresource: self.subresource.to_owned(),
        }
    }

    fn entry(&self, fields: FieldSet) -> Entry {
        Entry {
            version: self.api_version.to_owned(),
            time: self.now.to_owned(),
            fields,
        }
    }
}

/// Keeps the managers of an object that is created (`old` is `None`) or updated, by any request
/// but an application. `new` is as it will be stored, defaults and admission included.
pub fn update(old: Option<&Value>, new: &mut Value, schema: &Schema, writer: Writer<'_>) {
    let created = old.is_none().then(|| skeleton(schema));
    let changes = changes(old.or(created.as_ref()), new, schema);
    let changes = changes.map(|set| set.without(writer.ignored));
    let reset = Managers::is_reset(new);
    if let (Some(old), true, false) = (old, changes.is_empty(), reset) {
        return keep(old, new, writer);
    }
    let mut managers = match old {
        _ if reset => Managers::default(),
        Some(old) if !writer.subresource.is_empty() => Managers::of(old),
        _ => Managers::of(new),
    };
    if managers.0.is_empty() && !reset {
        managers = old.map(Managers::of).unwrap_or_default();
    }
    take(&mut managers, changes, writer);
    managers.cap();
    managers.write(new);
}

/// Who changes nothing leaves the managers as they are, unless it brings others with the object
/// itself.
fn keep(old: &Value, new: &mut Value, writer: Writer<'_>) {
    let given = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    if writer.subresource.is_empty() && given.is_some_and(|entries| !entries.is_empty()) {
        return;
    }
    let kept = old.pointer("/metadata/managedFields").cloned();
    if let (Some(kept), Some(metadata)) = (kept, new.get_mut("metadata")) {
        metadata["managedFields"] = kept;
    }
}

fn changes(old: Option<&Value>, new: &Value, schema: &Schema) -> Changes {
    compare(old, Some(new), Some(schema.root())).map(|set| set.difference(&UNOWNED))
}

/// Gives the fields that changed to the writer, and takes those from all others.
fn take(managers: &mut Managers, changes: Changes, writer: Writer<'_>) {
    if changes.is_empty() {
        return;
    }
    let taken = changes.added.union(changes.modified);
    for entry in managers.0.values_mut() {
        let fields = std::mem::take(&mut entry.fields);
        entry.fields = fields.difference(&taken).difference(&changes.removed);
    }
    if !taken.is_empty() {
        let manager = writer.as_manager(Operation::Update);
        let before = managers.0.remove(&manager).map(|entry| entry.fields);
        let fields = before.unwrap_or_default().union(taken);
        managers.0.insert(manager, writer.entry(fields));
    }
    managers.drop_empty();
}

/// Applies a configuration to the live object, or creates it. The result is neither defaulted
/// nor validated yet, and has its managers.
///
/// `complete` fills defaults. What an applier leaves out of a value that has one owner (a list
/// of ports, say) and the defaults fill in again is no change of it, and no conflict.
pub fn apply(
    live: Option<&Value>,
    config: Value,
    schema: &Schema,
    writer: Writer<'_>,
    force: bool,
    complete: &dyn Fn(&mut Value),
) -> Result<Value, ApplyError> {
    let named = config.pointer("/metadata/managedFields");
    if named.is_some_and(|fields| fields.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(ApplyError::ManagedFields);
    }
    let root = Some(schema.root());
    merge::well_formed(&config, root, "").map_err(ApplyError::Malformed)?;
    let request = Request {
        live,
        config: without_managers(&config),
        schema,
        writer,
        complete,
    };
    let result = match request.run(force) {
        Err(ApplyError::Conflict(conflicts)) => {
            let excused = migrate::excused(live, schema, writer.manager, complete);
            match conflicts.except(&excused) {
                None => request.run(true),
                Some(left) => Err(ApplyError::Conflict(left)),
            }
        }
        other => other,
    };
    let mut object = result?;
    migrate::keep_last_applied(live, &request.config, &mut object, writer.manager);
    Ok(object)
}

/// The object with a configuration merged in, whoever owns what.
pub fn merged(live: &Value, config: &Value, schema: &Schema) -> Value {
    merge::merge(Some(live), config, Some(schema.root()))
}

struct Request<'a> {
    live: Option<&'a Value>,
    config: Value,
    schema: &'a Schema,
    writer: Writer<'a>,
    complete: &'a dyn Fn(&mut Value),
}

impl Request<'_> {
    fn run(&self, force: bool) -> Result<Value, ApplyError> {
        let root = Some(self.schema.root());
        let mut managers = self.managers_before();
        let me = self.writer.as_manager(Operation::Apply);
        let before = managers.0.remove(&me);
        let wanted = fields_of(&self.config, root)
            .difference(&UNOWNED)
            .without(self.writer.ignored);
        managers.0.insert(me.clone(), self.writer.entry(wanted));

        let live = self.live.map(without_managers);
        let mut merged = merge::merge(live.as_ref(), &self.config, root);
        if let Some(before) = &before {
            let before = merge::without_hollow(&before.fields, root);
            merged = prune(merged, &before, &managers, self.schema);
        }
        let created = live.is_none().then(|| skeleton(self.schema));
        let mut completed = merged.clone();
        if live.is_some() {
            (self.complete)(&mut completed);
        }
        let changes = changes(live.as_ref().or(created.as_ref()), &completed, self.schema);
        let changes = changes.map(|set| set.without(self.writer.ignored));
        settle(&mut managers, &me, &changes, force)?;
        self.keep_time(&mut managers, &me, before, &changes);
        managers.drop_empty();
        managers.cap();
        ensure_metadata(&mut merged);
        managers.write(&mut merged);
        Ok(merged)
    }

    /// The managers of the live object. One that has none, from before fields had owners, gets
    /// one that owns all.
    fn managers_before(&self) -> Managers {
        let Some(live) = self.live else {
            return Managers::default();
        };
        let mut managers = Managers::of(live);
        if managers.0.is_empty() {
            let first = Writer {
                manager: "before-first-apply",
                subresource: "",
                ..self.writer
            };
            let fields = fields_of(live, Some(self.schema.root())).difference(&UNOWNED);
            let manager = first.as_manager(Operation::Update);
            managers.0.insert(manager, first.entry(fields));
        }
        managers
    }

    /// An application that changes nothing keeps its time, so that it writes nothing.
    fn keep_time(
        &self,
        managers: &mut Managers,
        me: &Manager,
        before: Option<Entry>,
        changes: &Changes,
    ) {
        if let (Some(before), Some(entry)) = (before, managers.0.get_mut(me))
            && changes.is_empty()
        {
            entry.time = before.time;
        }
    }
}

/// Refuses changes to what others own, or takes it from them.
fn settle(
    managers: &mut Managers,
    me: &Manager,
    changes: &Changes,
    force: bool,
) -> Result<(), ApplyError> {
    let taken = changes.added.clone().union(changes.modified.clone());
    let others = || managers.0.iter().filter(|(manager, _)| *manager != me);
    let conflicts = Conflicts::new(
        others().map(|(manager, entry)| (manager, entry.fields.intersection(&taken))),
    );
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflict(conflicts));
    }
    for (manager, entry) in managers.0.iter_mut() {
        if manager != me {
            let fields = std::mem::take(&mut entry.fields);
            entry.fields = fields.difference(&taken).difference(&changes.removed);
        }
    }
    Ok(())
}

/// Takes out of the merged object what its manager applied before and nobody owns now.
fn prune(merged: Value, before: &FieldSet, managers: &Managers, schema: &Schema) -> Value {
    let root = Some(schema.root());
    if before.is_empty() {
        return merged;
    }
    let nothing = || Value::Object(JsonMap::new());
    let all_of = |value: &Value| merge::with_named_fields(&fields_of(value, root), root);
    let entries = managers.0.values();
    let owned = entries.fold(FieldSet::default(), |all, e| all.union(e.fields.clone()));
    let owned = merge::with_named_fields(&owned, root);
    let before_named = merge::with_named_fields(before, root);

    // Removing an item removes what others own in it, so that comes back; and so does what no
    // one owns but did not come from the configuration before.
    let all = all_of(&merged);
    let pruned = merge::remove(&merged, before, root).unwrap_or_else(nothing);
    let gone = all.clone().difference(&all_of(&pruned)).difference(&owned);
    let pruned = merge::remove(&merged, &gone, root).unwrap_or_else(nothing);
    let gone = all.difference(&all_of(&pruned)).intersection(&before_named);
    merge::remove(&merged, &gone, root).unwrap_or_else(nothing)
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn ensure_metadata(object: &mut Value) {
    if let Value::Object(fields) = object {
        let metadata = fields.entry("metadata");
        metadata.or_insert_with(|| Value::Object(JsonMap::new()));
    }
}
