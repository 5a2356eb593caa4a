//! How ownership sees a value: as one leaf, as fields, or as items known by their keys.

use std::fmt::Write;

use serde_json::Value;

use super::set::Element;
use crate::graph::{List, ListKind, Name, Node, Type};

/// A place in a schema, or none where the schema says nothing: there objects are taken field by
/// field, and all else as a whole.
pub(crate) type Place<'a> = Option<Node<'a>>;

/// A value as ownership sees it.
pub(crate) enum Shape<'a> {
    /// One value of one owner.
    Leaf,
    /// Owned field by field.
    Fields,
    /// Owned item by item.
    Items(&'a List),
}

/// The shape of a value at a place. A value that is not of its type is a leaf.
pub(crate) fn shape<'a>(place: Place<'a>, value: &Value) -> Shape<'a> {
    match (place.map(Node::ty), value) {
        (None, Value::Object(_)) => Shape::Fields,
        (Some(Type::Map(map)), Value::Object(_)) if !map.atomic => Shape::Fields,
        (Some(Type::Object(object)), Value::Object(_)) if !object.atomic => Shape::Fields,
        (Some(Type::List(list)), Value::Array(_)) if list.kind != ListKind::Atomic => {
            Shape::Items(list)
        }
        _ => Shape::Leaf,
    }
}

/// The place of a field.
pub(crate) fn field<'a>(place: Place<'a>, name: &str) -> Place<'a> {
    place.and_then(|node| node.child(name))
}

/// The place of the items of a list.
pub(crate) fn item<'a>(place: Place<'a>) -> Place<'a> {
    place.and_then(Node::item)
}

/// Whether the schema names this field, rather than taking it as a key of a map.
pub(crate) fn is_named(place: Place<'_>, name: &str) -> bool {
    match place.map(Node::ty) {
        Some(Type::Object(object)) => object.field(name).is_some(),
        _ => false,
    }
}

/// Whether this field is an object that is written even when it is empty.
pub(crate) fn is_always(place: Place<'_>, name: &str) -> bool {
    let Some(Type::Object(object)) = place.map(Node::ty) else {
        return false;
    };
    let default = object.field(name).and_then(|field| field.default.as_ref());
    default
        .and_then(Value::as_object)
        .is_some_and(|fields| fields.is_empty())
}

/// The step to a field.
pub(crate) fn field_element(name: &str) -> Element {
    ["f:", name].concat()
}

/// The step to an item: by its keys, by its value, or by its position where it has no key.
pub(crate) fn item_element(list: &List, place: Place<'_>, index: usize, item: &Value) -> Element {
    let keys = match &list.kind {
        ListKind::Map(keys) => keys,
        _ => return format!("v:{item}"),
    };
    let mut keys: Vec<&Name> = keys.iter().collect();
    keys.sort();
    let mut out = String::from("k:{");
    for key in keys {
        if let Some(value) = item.get(key.as_ref()).or_else(|| key_default(place, key)) {
            let comma = if out.len() > 3 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(out, "{comma}{}:{value}", Value::from(key.as_ref()));
        }
    }
    if out.len() == 3 {
        return format!("i:{index}");
    }
    out.push('}');
    out
}

/// The elements of a list's items, in order.
pub(crate) fn elements(list: &List, place: Place<'_>, items: &[Value]) -> Vec<Element> {
    let inner = item(place);
    let element = |(index, value)| item_element(list, inner, index, value);
    items.iter().enumerate().map(element).collect()
}

/// What a key means that an item leaves out (`protocol` of a port).
pub(crate) fn key_default<'a>(place: Place<'a>, key: &Name) -> Option<&'a Value> {
    match place?.ty() {
        Type::Object(object) => object.field(key)?.default.as_ref(),
        _ => None,
    }
}
