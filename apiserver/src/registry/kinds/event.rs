//! `v1 Event` and `events.k8s.io/v1 Event`: one set of objects, two views of them.

use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, columns, value};

/// The names that the two views have for the same things: in core, in `events.k8s.io`.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// What events are selected by, where it stands in the core view.
const STORED: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source.component",
    "type",
];
const SELECTABLE: &[(&str, &[&str])] = &[
    ("involvedObject.kind", &["involvedObject.kind"]),
    ("involvedObject.namespace", &["involvedObject.namespace"]),
    ("involvedObject.name", &["involvedObject.name"]),
    ("involvedObject.uid", &["involvedObject.uid"]),
    ("involvedObject.apiVersion", &["involvedObject.apiVersion"]),
    (
        "involvedObject.resourceVersion",
        &["involvedObject.resourceVersion"],
    ),
    ("involvedObject.fieldPath", &["involvedObject.fieldPath"]),
    ("reason", &["reason"]),
    ("reportingComponent", &["reportingComponent"]),
    // Those of `events.k8s.io` have no source but who reports.
    ("source", &["source.component", "reportingComponent"]),
    ("type", &["type"]),
];
const GROUP_SELECTABLE: &[(&str, &[&str])] = &[
    ("regarding.kind", &["involvedObject.kind"]),
    ("regarding.namespace", &["involvedObject.namespace"]),
    ("regarding.name", &["involvedObject.name"]),
    ("regarding.uid", &["involvedObject.uid"]),
    ("regarding.apiVersion", &["involvedObject.apiVersion"]),
    (
        "regarding.resourceVersion",
        &["involvedObject.resourceVersion"],
    ),
    ("regarding.fieldPath", &["involvedObject.fieldPath"]),
    ("reason", &["reason"]),
    ("reportingController", &["reportingComponent"]),
    ("type", &["type"]),
];

/// The declaration of the core view, under which events are kept.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Event", "events")
        .short_names(&["ev"])
        .create_on_update()
        .selectable_from(STORED, SELECTABLE)
        .indexed(&["involvedObject.uid"])
        .columns(table(&CORE))
        .rules(CoreEvents)
}

/// The declaration of the other view.
pub fn kind_of_group() -> Kind {
    Kind::namespaced("events.k8s.io", "v1", "Event", "events")
        .short_names(&["ev"])
        .create_on_update()
        .stored_as("", "events")
        .selectable_from(STORED, GROUP_SELECTABLE)
        .indexed(&["involvedObject.uid"])
        .columns(table(&GROUP))
        .rules(GroupEvents)
}

struct CoreEvents;

impl Rules for CoreEvents {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validate(object, "involvedObject", errors);
    }
}

struct GroupEvents;

impl Rules for GroupEvents {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validate(object, "regarding", errors);
        let root = At::root(object);
        if root.at("eventTime").is_set() {
            root.at("reason").required(errors);
            root.at("action").required(errors);
            root.at("reportingController").required(errors);
            root.at("reportingInstance").required(errors);
        }
    }

    fn from_stored(&self, object: &mut Value) {
        rename(object, "events.k8s.io/v1", |(core, group)| (core, group));
    }

    fn to_stored(&self, object: &mut Value) {
        rename(object, "v1", |(core, group)| (group, core));
    }
}

/// An event stands in the namespace of what it is about; for what has none, in `default`.
fn validate(object: &Value, about: &str, errors: &mut FieldErrors) {
    let root = At::root(object);
    let regarded = root.at(about);
    let about = regarded.at("namespace");
    let namespace = root.at("metadata.namespace").text().to_owned();
    let fits = match about.text() {
        "" => matches!(namespace.as_str(), "" | "default" | "kube-system"),
        of => of == namespace,
    };
    if !fits {
        about.invalid(errors, "does not match event.namespace");
    }
}

fn rename(
    object: &mut Value,
    version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    fields.insert("apiVersion".to_owned(), version.into());
    for &names in NAMES {
        let (from, to) = direction(names);
        if let Some(found) = fields.remove(from) {
            fields.insert(to.to_owned(), found);
        }
    }
}

/// Where a view has what the table shows.
struct Fields {
    last_seen: columns::CellFn,
    object: columns::CellFn,
    subobject: &'static str,
    source: columns::CellFn,
    message: columns::CellFn,
    first_seen: columns::CellFn,
    count: columns::CellFn,
}

const CORE: Fields = Fields {
    last_seen: |event, now| last_seen(event, "lastTimestamp", "firstTimestamp", now),
    object: |event, _| regarded(event, "involvedObject"),
    subobject: "involvedObject.fieldPath",
    source: |event, _| source(event, "source", "reportingComponent"),
    message: |event, _| value::text(event, "message").trim().into(),
    first_seen: |event, now| first_seen(event, "firstTimestamp", now),
    count: |event, _| count(event, "count"),
};

const GROUP: Fields = Fields {
    last_seen: |event, now| {
        let (last, first) = ("deprecatedLastTimestamp", "deprecatedFirstTimestamp");
        last_seen(event, last, first, now)
    },
    object: |event, _| regarded(event, "regarding"),
    subobject: "regarding.fieldPath",
    source: |event, _| source(event, "deprecatedSource", "reportingController"),
    message: |event, _| value::text(event, "note").trim().into(),
    first_seen: |event, now| first_seen(event, "deprecatedFirstTimestamp", now),
    count: |event, _| count(event, "deprecatedCount"),
};

fn table(fields: &Fields) -> Vec<Column> {
    let mut name = Column::name().wide();
    name.description = "".into();
    vec![
        Column::computed("Last Seen", "string", fields.last_seen),
        Column::path("Type", "string", "type"),
        Column::path("Reason", "string", "reason"),
        Column::computed("Object", "string", fields.object),
        Column::path("Subobject", "string", fields.subobject).wide(),
        Column::computed("Source", "string", fields.source).wide(),
        Column::computed("Message", "string", fields.message),
        Column::computed("First Seen", "string", fields.first_seen).wide(),
        Column::computed("Count", "string", fields.count).wide(),
        name,
    ]
}

fn age_at(event: &Value, paths: &[&str], now: jiff::Timestamp) -> Value {
    let set = paths.iter().find(|path| value::at(event, path).is_some());
    match set {
        Some(path) => columns::age(event, path, now).into(),
        None => "<unknown>".into(),
    }
}

fn last_seen(event: &Value, last: &str, first: &str, now: jiff::Timestamp) -> Value {
    age_at(
        event,
        &["series.lastObservedTime", last, first, "eventTime"],
        now,
    )
}

fn first_seen(event: &Value, first: &str, now: jiff::Timestamp) -> Value {
    age_at(event, &[first, "eventTime"], now)
}

fn regarded(event: &Value, field: &str) -> Value {
    let object = &event[field];
    let kind = value::text(object, "kind").to_lowercase();
    let name = value::text(object, "name");
    match name.is_empty() {
        true => kind.into(),
        false => format!("{kind}/{name}").into(),
    }
}

fn source(event: &Value, source: &str, reporter: &str) -> Value {
    let host = value::text(&event[source], "host");
    let component = match value::text(&event[source], "component") {
        "" => value::text(event, reporter),
        component => component,
    };
    match host.is_empty() {
        true => component.into(),
        false => format!("{component}, {host}").into(),
    }
}

fn count(event: &Value, field: &str) -> Value {
    let seen = value::integer(event, "series.count").or_else(|| value::integer(event, field));
    seen.unwrap_or(1).max(1).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_event_in_two_views() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod", "name": "p"}, "reason": "r"});
        let mut view = core.clone();
        GroupEvents.from_stored(&mut view);
        assert_eq!(
            view,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "m",
                "deprecatedCount": 2, "regarding": {"kind": "Pod", "name": "p"}, "reason": "r"})
        );
        GroupEvents.to_stored(&mut view);
        assert_eq!(view, core);
    }
}
