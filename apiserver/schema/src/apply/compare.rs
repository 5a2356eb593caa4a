//! Which fields a value has, and which differ between two values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::set::{Element, FieldSet};
use super::shape::{self, Place, Shape, shape};

/// The fields that a value has: its leaves, its items, and the keys of its maps.
pub(crate) fn fields_of(value: &Value, place: Place<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match (shape(place, value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            for (name, value) in fields {
                let mut below = fields_of(value, shape::field(place, name));
                let empty = value.is_null() || value.as_object().is_some_and(|o| o.is_empty());
                below.own |= empty || !shape::is_named(place, name);
                set.attach(shape::field_element(name), below);
            }
        }
        (Shape::Items(list), Value::Array(items)) => {
            let inner = shape::item(place);
            for (element, item) in shape::elements(list, place, items).into_iter().zip(items) {
                // Items that share a key are owned together.
                let below = match set.children.get(&element) {
                    Some(_) => FieldSet::default(),
                    None => fields_of(item, inner),
                };
                set.attach(element, FieldSet { own: true, ..below });
            }
        }
        _ => set.own = true,
    }
    set
}

/// What changed between two values.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Only the new one has these.
    pub(crate) added: FieldSet,
    /// Both have these, with different values.
    pub(crate) modified: FieldSet,
    /// Only the old one has these.
    pub(crate) removed: FieldSet,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Each of the sets changed alike.
    pub(crate) fn map(self, change: impl Fn(FieldSet) -> FieldSet) -> Self {
        Self {
            added: change(self.added),
            modified: change(self.modified),
            removed: change(self.removed),
        }
    }

    fn attach(&mut self, element: Element, below: Self) {
        // Most changes are of one sort: the name goes to the last, and is copied for the others.
        let more = !below.modified.is_empty() || !below.removed.is_empty();
        if !more {
            return self.added.attach(element, below.added);
        }
        if !below.added.is_empty() {
            self.added.attach(element.clone(), below.added);
        }
        if below.removed.is_empty() {
            return self.modified.attach(element, below.modified);
        }
        if !below.modified.is_empty() {
            self.modified.attach(element.clone(), below.modified);
        }
        self.removed.attach(element, below.removed);
    }

    /// The place itself, when one side does not have it.
    fn note_presence(&mut self, old: Option<&Value>, new: Option<&Value>) {
        self.added.own |= old.is_none();
        self.removed.own |= new.is_none();
    }
}

/// Compares two values of one place.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, place: Place<'_>) -> Changes {
    let mut changes = Changes::default();
    let Some(present) = new.or(old) else {
        return changes;
    };
    // To compare is much cheaper than to name every field, and most are the same.
    if old == new {
        return changes;
    }
    match shape(place, present) {
        Shape::Fields if of_fields(old, new) => compare_fields(old, new, place, &mut changes),
        Shape::Items(_) if of_items(old, new) => compare_items(old, new, place, &mut changes),
        _ => changes.modified.own = old.is_some() && new.is_some() && old != new,
    }
    changes.note_presence(old, new);
    changes
}

/// Whether both sides can be taken apart; two empty ones are leaves, so that the difference
/// between empty and absent is seen.
fn of_fields(old: Option<&Value>, new: Option<&Value>) -> bool {
    let sides = || old.iter().chain(&new);
    sides().all(|side| side.is_object())
        && sides().any(|side| side.as_object().is_some_and(|o| !o.is_empty()))
}

fn of_items(old: Option<&Value>, new: Option<&Value>) -> bool {
    let sides = || old.iter().chain(&new);
    sides().all(|side| side.is_array())
        && sides().any(|side| side.as_array().is_some_and(|o| !o.is_empty()))
}

fn compare_fields(
    old: Option<&Value>,
    new: Option<&Value>,
    place: Place<'_>,
    changes: &mut Changes,
) {
    let (old, new) = (
        old.and_then(Value::as_object),
        new.and_then(Value::as_object),
    );
    for (name, value) in new.into_iter().flatten() {
        let before = old.and_then(|fields| fields.get(name));
        let below = compare(before, Some(value), shape::field(place, name));
        if !below.is_empty() {
            changes.attach(shape::field_element(name), below);
        }
    }
    for (name, value) in old.into_iter().flatten() {
        if !new.is_some_and(|fields| fields.contains_key(name)) {
            let below = compare(Some(value), None, shape::field(place, name));
            changes.attach(shape::field_element(name), below);
        }
    }
}

fn compare_items(
    old: Option<&Value>,
    new: Option<&Value>,
    place: Place<'_>,
    changes: &mut Changes,
) {
    if let (None, Some(list @ Value::Array(items))) = (old, new)
        && let Shape::Items(kind) = shape(place, list)
    {
        // All is new: nothing to look for.
        let inner = shape::item(place);
        for (element, item) in shape::elements(kind, place, items).into_iter().zip(items) {
            changes.attach(element, compare(None, Some(item), inner));
        }
        return;
    }
    let (old, new) = (by_element(old, place), by_element(new, place));
    let all: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    let none = Vec::new();
    for element in all {
        let before = old.get(element).unwrap_or(&none);
        let after = new.get(element).unwrap_or(&none);
        let below = match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => {
                let (before, after) = (before.first(), after.first());
                compare(before.copied(), after.copied(), shape::item(place))
            }
            // Items that share a key are compared as one.
            (before, after) => {
                let mut below = Changes::default();
                below.added.own = before.is_empty();
                below.removed.own = after.is_empty();
                below.modified.own = !before.is_empty() && !after.is_empty() && before != after;
                below
            }
        };
        if !below.is_empty() {
            changes.attach(element.clone(), below);
        }
    }
}

fn by_element<'a>(list: Option<&'a Value>, place: Place<'_>) -> BTreeMap<Element, Vec<&'a Value>> {
    let mut out: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    let Some(items) = list.and_then(Value::as_array) else {
        return out;
    };
    if let Some(Shape::Items(kind)) = list.map(|list| shape(place, list)) {
        for (element, item) in shape::elements(kind, place, items).into_iter().zip(items) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}
