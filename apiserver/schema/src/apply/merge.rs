//! Merges an applied configuration into a live object, and takes fields out of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as JsonMap, Value};

use super::children::Children;
use super::set::{Element, FieldSet, spelled};
use super::shape::{self, Place, Shape, shape};
use crate::graph::{List, ListKind};

/// The live value with what the configuration says in its place.
pub(crate) fn merge(live: Option<&Value>, config: &Value, place: Place<'_>) -> Value {
    match (shape(place, config), live, config) {
        (Shape::Fields, Some(Value::Object(live)), Value::Object(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = merge(live.get(name), value, shape::field(place, name));
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::Items(list), Some(Value::Array(live)), Value::Array(config)) => {
            Value::Array(merge_items(live, config, list, place))
        }
        _ => config.clone(),
    }
}

/// The items of both. Those of the configuration stand in its order; those that only the live
/// list has keep their places among the shared ones, as well as that order allows.
fn merge_items(live: &[Value], config: &[Value], list: &List, place: Place<'_>) -> Vec<Value> {
    let inner = shape::item(place);
    let live_elements = shape::elements(list, place, live);
    let config_elements = shape::elements(list, place, config);
    let applied: BTreeSet<&Element> = config_elements.iter().collect();
    let mut known: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in live_elements.iter().zip(live) {
        known.entry(element).or_insert(item);
    }

    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut rest = live_elements.iter().zip(live).peekable();
    for (element, item) in config_elements.iter().zip(config) {
        while let Some((next, value)) = rest.peek() {
            if !applied.contains(next) {
                out.push((*value).clone());
            } else if *next == element || !known.contains_key(element) {
                break;
            }
            rest.next();
        }
        rest.next_if(|(next, _)| *next == element);
        out.push(merge(known.get(element).copied(), item, inner));
    }
    let left = rest.filter(|(element, _)| !applied.contains(element));
    out.extend(left.map(|(_, value)| value.clone()));
    out
}

/// The value without the members of a set; what becomes empty by that goes too. `None` when
/// nothing is left.
pub(crate) fn remove(value: &Value, gone: &FieldSet, place: Place<'_>) -> Option<Value> {
    if gone.children.is_empty() {
        return Some(value.clone());
    }
    match (shape(place, value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            let mut out = JsonMap::new();
            for (name, value) in fields {
                let below = gone.children.get(&shape::field_element(name));
                if let Some(kept) = keep(value, below, shape::field(place, name)) {
                    out.insert(name.clone(), kept);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        (Shape::Items(list), Value::Array(items)) => {
            let elements = shape::elements(list, place, items);
            let kept: Vec<Value> = elements
                .iter()
                .zip(items)
                .filter_map(|(element, item)| {
                    keep(item, gone.children.get(element), shape::item(place))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

fn keep(value: &Value, gone: Option<&FieldSet>, place: Place<'_>) -> Option<Value> {
    match gone {
        None => Some(value.clone()),
        Some(set) if set.own => None,
        Some(set) => remove(value, set, place),
    }
}

/// The set with every field that a schema names, above one of its members, as a member too:
/// so that an object is not taken for empty because its parts have owners.
pub(crate) fn with_named_fields(set: &FieldSet, place: Place<'_>) -> FieldSet {
    let mut out = FieldSet {
        own: set.own,
        children: Children::EMPTY,
    };
    for (element, below) in set.children.iter() {
        let name = element.strip_prefix("f:");
        let inner = match name {
            Some(name) => shape::field(place, name),
            None => shape::item(place),
        };
        let mut child = with_named_fields(below, inner);
        child.own |= name.is_some_and(|name| shape::is_named(place, name));
        out.children.insert(element.clone(), child);
    }
    out
}

/// The set without the objects that are written even when they are empty, and of which it has
/// nothing else. Who left them out has them by the defaults, and what others put into them since
/// (the limits of a namespace, say) does not go with them.
pub(crate) fn without_hollow(set: &FieldSet, place: Place<'_>) -> FieldSet {
    let mut out = FieldSet {
        own: set.own,
        children: Children::EMPTY,
    };
    for (element, below) in set.children.iter() {
        let (inner, always) = match element.strip_prefix("f:") {
            Some(name) => (shape::field(place, name), shape::is_always(place, name)),
            None => (shape::item(place), false),
        };
        if !(always && below.children.is_empty()) {
            out.attach(element.clone(), without_hollow(below, inner));
        }
    }
    out
}

/// Refuses a configuration whose lists cannot be owned item by item: an item twice, or one
/// without its keys.
pub(crate) fn well_formed(value: &Value, place: Place<'_>, path: &str) -> Result<(), String> {
    match (shape(place, value), value) {
        (Shape::Fields, Value::Object(fields)) => fields.iter().try_for_each(|(name, value)| {
            well_formed(value, shape::field(place, name), &format!("{path}.{name}"))
        }),
        (Shape::Items(list), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let inner = shape::item(place);
                has_keys(list, inner, item)
                    .map_err(|fault| format!("{path}: element {index}: {fault}"))?;
                let element = shape::item_element(list, inner, index, item);
                let spelled = spelled(&element);
                if !seen.insert(element) {
                    return Err(format!("{path}: duplicate entries for key {spelled}"));
                }
                well_formed(item, inner, &format!("{path}{spelled}"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn has_keys(list: &List, place: Place<'_>, item: &Value) -> Result<(), String> {
    let ListKind::Map(keys) = &list.kind else {
        return Ok(());
    };
    if !item.is_object() {
        return Err("associative list with keys may not have non-map elements".to_owned());
    }
    let has = |key| item.get(key).is_some();
    if keys.iter().any(|key| has(key.as_ref())) {
        return Ok(());
    }
    match keys
        .iter()
        .find(|key| shape::key_default(place, key).is_none())
    {
        None => Ok(()),
        Some(key) => Err(format!(
            "associative list with keys has an element that omits key field \"{key}\" (and doesn't have default value)"
        )),
    }
}
