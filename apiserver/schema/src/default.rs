//! Fills what a value leaves out and its schema knows: literal defaults, and the empty values of
//! required fields, which Go's encoder writes and clients rely on.

use serde_json::{Map as JsonMap, Value};

use crate::graph::{Field, Node, Object, Scalar, Schema, Type};

/// Fills defaults, everywhere in the value. Wrong types are left alone.
pub fn default(value: &mut Value, schema: &Schema) {
    match schema.custom() {
        None => fill(value, schema.root()),
        Some(custom) => crate::custom::defaults::fill(value, custom),
    }
}

/// What [`default`] puts in the place of a field of an object that has none of its fields.
pub fn of_field(name: &str, schema: &Schema) -> Option<Value> {
    match (schema.custom(), schema.root().ty()) {
        (None, Type::Object(object)) => {
            let field = object.field(name)?;
            if field.default.is_none() && !field.required {
                return None;
            }
            let mut value = missing(field, schema.root())?;
            fill(&mut value, schema.root().to(field.ty));
            Some(value)
        }
        _ => {
            let mut bare = Value::Object(JsonMap::new());
            default(&mut bare, schema);
            bare.as_object_mut()?.remove(name)
        }
    }
}

fn fill(value: &mut Value, node: Node<'_>) {
    match (node.ty(), value) {
        (Type::Object(object), Value::Object(fields)) => fill_object(fields, object, node),
        (Type::Map(map), Value::Object(entries)) => {
            let inner = node.to(map.value);
            if has_parts(inner) {
                entries.values_mut().for_each(|value| fill(value, inner));
            }
        }
        (Type::List(list), Value::Array(items)) => {
            let inner = node.to(list.item);
            if has_parts(inner) {
                items.iter_mut().for_each(|value| fill(value, inner));
            }
        }
        _ => {}
    }
}

fn has_parts(node: Node<'_>) -> bool {
    !matches!(node.ty(), Type::Scalar(_))
}

fn fill_object(fields: &mut JsonMap<String, Value>, object: &Object, node: Node<'_>) {
    for field in &object.fields {
        if field.default.is_none() && !field.required {
            continue;
        }
        if !fields.contains_key(field.name.as_ref())
            && let Some(value) = missing(field, node)
        {
            fields.insert(field.name.to_string(), value);
        }
    }
    for (name, value) in fields.iter_mut() {
        if matches!(value, Value::Object(_) | Value::Array(_))
            && let Some(field) = object.field(name)
        {
            fill(value, node.to(field.ty));
        }
    }
}

/// What stands for a field that is not there.
fn missing(field: &Field, node: Node<'_>) -> Option<Value> {
    if field.default.is_some() {
        return field.default.clone();
    }
    match node.to(field.ty).ty() {
        Type::Scalar(Scalar::String) => Some(Value::from("")),
        Type::Scalar(Scalar::Bool) => Some(Value::from(false)),
        Type::Scalar(Scalar::Int32 | Scalar::Int64) => Some(Value::from(0)),
        Type::Scalar(Scalar::Quantity) => Some(Value::from("0")),
        Type::List(_) => Some(Value::Array(Vec::new())),
        Type::Map(_) => Some(Value::Object(JsonMap::new())),
        // A missing selector selects nothing and an empty one everything: never make one up.
        Type::Object(object) if object.name == "meta.v1.LabelSelector" => None,
        Type::Object(_) => Some(Value::Object(JsonMap::new())),
        Type::Scalar(_) => None,
    }
}

/// The empty object of a kind: only the objects that are always written, with nothing in them
/// but each other.
pub fn skeleton(schema: &Schema) -> Value {
    empty_object(schema.root())
}

fn empty_object(node: Node<'_>) -> Value {
    let mut fields = JsonMap::new();
    if let Type::Object(object) = node.ty() {
        for field in &object.fields {
            let always = field
                .default
                .as_ref()
                .map_or(field.required, Value::is_object);
            let inner = node.to(field.ty);
            let named = matches!(inner.ty(), Type::Object(o) if o.name != "meta.v1.LabelSelector");
            if always && named {
                fields.insert(field.name.to_string(), empty_object(inner));
            }
        }
    }
    Value::Object(fields)
}
