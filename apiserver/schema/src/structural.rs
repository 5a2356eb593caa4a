//! Types from OpenAPI v3 schemas, as custom resources bring them: the structural subset
//! (`type`, `properties`, `additionalProperties`, `items`, `format`, `default`, `required`) with
//! Kubernetes' extensions.
//!
//! See "Structural schemas" in Kubernetes' docs on custom resources.

use serde_json::{Map as JsonMap, Value};

use crate::graph::{
    Field, Graph, List, ListKind, Map, Name, Object, PatchStrategy, Scalar, Type, TypeId,
};

/// How deep a schema may nest; what is deeper is taken as any value.
const DEPTH_MAX: usize = 64;

/// Adds a kind whose objects have this schema, under `name` (`net.v1.IpBlock`): `apiVersion`,
/// `kind` and `metadata` are those of every object.
pub fn add_kind(graph: &mut Graph, name: &str, schema: &Value) -> TypeId {
    let text = graph.add(Type::Scalar(Scalar::String));
    let metadata = graph.named(Name::Borrowed("meta.v1.ObjectMeta"));
    let mut object = object_of(graph, schema, 0);
    object.name = Name::Owned(name.to_owned());
    let mut fields = object.fields.into_vec();
    fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
    for (name, ty) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
        fields.push(Field {
            name: Name::Borrowed(name),
            ty,
            required: false,
            default: None,
            patch: PatchStrategy::default(),
            way: None,
        });
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    object.fields = fields.into();
    let id = graph.named(Name::Owned(name.to_owned()));
    graph.set(id, Type::Object(object));
    id
}

/// As [`add_kind`], for a custom resource: its document is published as it is.
pub fn add_custom(graph: &mut Graph, name: &str, document: &Value) -> TypeId {
    let id = add_kind(graph, name, document);
    graph.publish(id, document);
    id
}

/// Adds the type that a schema describes.
pub fn add(graph: &mut Graph, schema: &Value) -> TypeId {
    add_at(graph, schema, 0)
}

fn add_at(graph: &mut Graph, schema: &Value, depth: usize) -> TypeId {
    let ty = match depth < DEPTH_MAX {
        true => type_of(graph, schema, depth + 1),
        false => Type::Scalar(Scalar::Any),
    };
    graph.add(ty)
}

fn type_of(graph: &mut Graph, schema: &Value, depth: usize) -> Type {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    let has = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let format = text("format").unwrap_or_default();
    Type::Scalar(match (type_name(schema), format) {
        _ if has("x-kubernetes-int-or-string") => Scalar::Int64OrString,
        ("object", _) => return object_or_map(graph, schema, depth),
        ("array", _) => {
            let nothing = Value::Null;
            let item = schema.get("items").unwrap_or(&nothing);
            let item = add_at(graph, item, depth);
            let kind = list_kind(schema);
            return Type::List(List { item, kind });
        }
        ("string", "byte") => Scalar::Bytes,
        ("string", _) => Scalar::String,
        ("integer", "int32") => Scalar::Int32,
        ("integer", _) => Scalar::Int64,
        ("number", _) => Scalar::Number,
        ("boolean", _) => Scalar::Bool,
        // Whatever it is, its fields have owners of their own.
        ("", _) if has("x-kubernetes-preserve-unknown-fields") => {
            return Type::Object(object_of(graph, schema, depth));
        }
        _ => Scalar::Any,
    })
}

/// The type's name; of `[T, null]`, T.
fn type_name(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            let mut names = names.iter().filter_map(Value::as_str);
            names.find(|name| *name != "null").unwrap_or_default()
        }
        _ => "",
    }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys");
            let keys = keys.and_then(Value::as_array).into_iter().flatten();
            let keys = keys.filter_map(Value::as_str);
            ListKind::Map(keys.map(|key| Name::Owned(key.to_owned())).collect())
        }
        _ => ListKind::Atomic,
    }
}

fn is_atomic(schema: &Value) -> bool {
    schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
}

fn object_or_map(graph: &mut Graph, schema: &Value, depth: usize) -> Type {
    match schema.get("additionalProperties") {
        Some(values) if values.is_object() => Type::Map(Map {
            value: add_at(graph, values, depth),
            atomic: is_atomic(schema),
        }),
        _ => Type::Object(object_of(graph, schema, depth)),
    }
}

fn object_of(graph: &mut Graph, schema: &Value, depth: usize) -> Object {
    let nothing = JsonMap::new();
    let properties = schema.get("properties").and_then(Value::as_object);
    let keeps = schema.get("x-kubernetes-preserve-unknown-fields");
    // The properties of a JSON object are in the order of their names, as fields must be.
    let fields = properties.unwrap_or(&nothing).iter();
    let fields = fields.map(|(name, schema)| Field {
        name: Name::Owned(name.clone()),
        ty: add_at(graph, schema, depth),
        // A custom resource's missing field is an error of validation, never made up.
        required: false,
        default: schema.get("default").cloned(),
        patch: PatchStrategy::default(),
        way: None,
    });
    let mut fields: Vec<Field> = fields.collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Object {
        name: Name::Borrowed(""),
        fields: fields.into(),
        keeps_unknown: keeps == Some(&Value::Bool(true)),
        atomic: is_atomic(schema),
        document: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Schema;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_custom_resource_is_checked_and_defaulted() {
        let mut graph = crate::builtin::graph(|text| Ok(text.to_owned()));
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "size": {"type": "integer", "format": "int32", "default": 3},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                      "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        }}}});
        add_kind(&mut graph, "net.v1.Thing", &schema);
        let schema = Schema::named(&Arc::new(graph), "net.v1.Thing").unwrap();
        let mut value = json!({
            "kind": "Thing", "metadata": {"name": "x", "odd": 1},
            "spec": {"free": {"a": [1]}, "labels": {"a": "b"}, "odd": 1, "ports": [{"port": 1}]},
        });
        let faults = crate::check::check(&mut value, &schema).unwrap();
        assert_eq!(
            faults,
            [
                "unknown field \"metadata.odd\"",
                "unknown field \"spec.odd\""
            ]
        );
        crate::default::default(&mut value, &schema);
        assert_eq!(
            value,
            json!({
                "kind": "Thing", "metadata": {"name": "x"},
                "spec": {"free": {"a": [1]}, "labels": {"a": "b"}, "size": 3, "ports": [{"port": 1}]},
            })
        );
        let mut wrong = json!({"spec": {"size": "3"}});
        assert!(crate::check::check(&mut wrong, &schema).is_err());
    }
}
