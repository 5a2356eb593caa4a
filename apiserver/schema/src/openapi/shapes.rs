//! Types as JSON Schema, with Kubernetes' extensions.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value, json};

use super::{Descriptions, Form, Gvk};
use crate::custom::{Publication, publish};
use crate::graph::{Field, ListKind, Node, Object, Scalar, Schema, Type};

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// The published name of a type of the graph: `core.v1.Pod` is `io.k8s.api.core.v1.Pod`.
pub(super) fn published(name: &str) -> String {
    let prefix = match name.split('.').next() {
        Some("io") => return name.to_owned(),
        Some("meta") => "io.k8s.apimachinery.pkg.apis",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis",
        Some("net") => "dev.peapod",
        _ => "io.k8s.api",
    };
    format!("{prefix}.{name}")
}

/// The published name of the type of a kind's objects.
pub(super) fn name_of(schema: &Schema) -> Option<String> {
    match schema.root().ty() {
        Type::Object(object) if !object.name.is_empty() => Some(published_name(object)),
        _ => None,
    }
}

fn published_name(object: &Object) -> String {
    match object.document {
        Some(_) => object.name.to_string(),
        None => published(&object.name),
    }
}

/// Collects definitions: of the kinds that are added, and of all that they refer to.
pub(super) struct Shapes<'a> {
    form: Form,
    descriptions: &'a dyn Descriptions,
    out: BTreeMap<String, Value>,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(form: Form, descriptions: &'a dyn Descriptions) -> Self {
        Self {
            form,
            descriptions,
            out: BTreeMap::new(),
        }
    }

    /// Adds a kind, and says in its definition what kind it is.
    pub(super) fn add_kind(&mut self, schema: &Schema, gvk: Gvk<'_>) {
        self.refer(schema.root());
        let name = name_of(schema);
        let Some(Value::Object(shape)) = name.and_then(|name| self.out.get_mut(&name)) else {
            return;
        };
        let kinds = shape.entry("x-kubernetes-group-version-kind");
        let kinds = kinds.or_insert_with(|| Value::Array(Vec::new()));
        let gvk = gvk.to_value();
        if let Value::Array(kinds) = kinds
            && !kinds.contains(&gvk)
        {
            kinds.push(gvk);
        }
    }

    /// Adds the list of a kind.
    pub(super) fn add_list(&mut self, schema: &Schema, gvk: Gvk<'_>) {
        let Type::Object(object) = schema.root().ty() else {
            return;
        };
        let kind = format!("{}List", gvk.kind);
        let gvk = Gvk { kind: &kind, ..gvk };
        let graph = schema.graph();
        if let Some(list) = Schema::named(graph, &format!("{}List", object.name)) {
            return self.add_kind(&list, gvk);
        }
        let meta = graph.find("meta.v1.ListMeta").map(|id| graph.node(id));
        let shape = json!({
            "type": "object",
            "description": format!("{kind} is a list of {}", object.name),
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "items": {"type": "array", "items": self.refer(schema.root())},
                "metadata": meta.map(|meta| self.refer(meta)).unwrap_or_default(),
            },
            "x-kubernetes-group-version-kind": [gvk.to_value()],
        });
        let name = format!("{}List", published_name(object));
        self.out.insert(name, shape);
    }

    pub(super) fn finish(self) -> JsonMap<String, Value> {
        self.out.into_iter().collect()
    }

    /// The schema of a type: a reference where it has a name.
    fn refer(&mut self, node: Node<'_>) -> Value {
        match node.ty() {
            Type::Scalar(scalar) => self.scalar(*scalar),
            Type::List(list) => {
                json!({"type": "array", "items": self.refer(node.to(list.item))})
            }
            Type::Map(map) => {
                json!({"type": "object", "additionalProperties": self.refer(node.to(map.value))})
            }
            Type::Object(object) if object.name.is_empty() => self.object(object, node),
            Type::Object(object) => {
                let name = published_name(object);
                if !self.out.contains_key(&name) {
                    // In its place before its fields are looked at, for types that recur.
                    self.out.insert(name.clone(), Value::Null);
                    let shape = match &object.document {
                        Some(document) => self.document(document, node),
                        None => self.object(object, node),
                    };
                    self.out.insert(name.clone(), shape);
                }
                self.reference(&name)
            }
        }
    }

    /// The schema of a custom resource, as its author wrote it.
    fn document(&mut self, document: &Value, node: Node<'_>) -> Value {
        let metadata = node.child("metadata").map(|node| self.refer(node));
        let to = Publication {
            metadata: &metadata.unwrap_or_default(),
            v2: self.form == Form::V2,
        };
        publish(document, to)
    }

    fn reference(&self, name: &str) -> Value {
        json!({"$ref": self.form.reference(name)})
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let (name, shape) = match scalar {
            Scalar::String => return json!({"type": "string"}),
            Scalar::Int32 => return json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => return json!({"type": "integer", "format": "int64"}),
            Scalar::Number => return json!({"type": "number", "format": "double"}),
            Scalar::Bool => return json!({"type": "boolean"}),
            Scalar::Bytes => return json!({"type": "string", "format": "byte"}),
            Scalar::Any => return json!({"type": "object"}),
            Scalar::Time => (TIME, json!({"type": "string", "format": "date-time"})),
            Scalar::MicroTime => (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
            Scalar::Quantity => (QUANTITY, json!({"type": "string"})),
            Scalar::IntOrString | Scalar::Int64OrString => (
                INT_OR_STRING,
                json!({"type": "string", "format": "int-or-string"}),
            ),
        };
        if !self.out.contains_key(name) {
            let mut shape = shape;
            self.describe(&mut shape, self.descriptions.of_type(name));
            self.out.insert(name.to_owned(), shape);
        }
        self.reference(name)
    }

    fn object(&mut self, object: &Object, node: Node<'_>) -> Value {
        let name = published(&object.name);
        let mut shape = json!({"type": "object"});
        self.describe(&mut shape, self.descriptions.of_type(&name));
        let mut properties = JsonMap::new();
        for field in &object.fields {
            let mut property = self.field(field, node);
            let description = self.descriptions.of_field(&name, &field.name);
            self.describe(&mut property, description);
            properties.insert(field.name.to_string(), property);
        }
        if !properties.is_empty() {
            shape["properties"] = Value::Object(properties);
        }
        let required = object.fields.iter().filter(|field| field.required);
        let required: Vec<&str> = required.map(|field| field.name.as_ref()).collect();
        if !required.is_empty() {
            shape["required"] = json!(required);
        }
        if object.atomic {
            shape["x-kubernetes-map-type"] = "atomic".into();
        }
        if object.keeps_unknown {
            shape["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        shape
    }

    fn field(&mut self, field: &Field, node: Node<'_>) -> Value {
        let inner = node.to(field.ty);
        let mut shape = self.refer(inner);
        // In v3 nothing may stand beside a reference.
        if self.form == Form::V3 && shape.get("$ref").is_some() {
            shape = json!({"allOf": [shape]});
        }
        if let Some(default) = &field.default {
            shape["default"] = default.clone();
        }
        self.list_extensions(&mut shape, inner);
        if matches!(inner.ty(), Type::Map(map) if map.atomic) {
            shape["x-kubernetes-map-type"] = "atomic".into();
        }
        let patch = &field.patch;
        let strategies = [
            (patch.merge, "merge"),
            (patch.replace, "replace"),
            (patch.retain_keys, "retainKeys"),
        ];
        let strategies = strategies.iter().filter(|(set, _)| *set);
        let strategies: Vec<&str> = strategies.map(|(_, name)| *name).collect();
        if !strategies.is_empty() {
            shape["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        if let Some(key) = &patch.merge_key {
            shape["x-kubernetes-patch-merge-key"] = key.as_ref().into();
        }
        shape
    }

    fn list_extensions(&self, shape: &mut Value, node: Node<'_>) {
        let Type::List(list) = node.ty() else {
            return;
        };
        let kind = match &list.kind {
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map(keys) => {
                shape["x-kubernetes-list-map-keys"] = json!(keys);
                "map"
            }
        };
        shape["x-kubernetes-list-type"] = kind.into();
    }

    fn describe(&self, shape: &mut Value, description: Option<String>) {
        if let Some(description) = description {
            shape["description"] = description.into();
        }
    }
}
