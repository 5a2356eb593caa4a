//! The documents that describe the API to clients: OpenAPI v3 for each group and version, and
//! one OpenAPI v2 document for all, as JSON and as protobuf.
//!
//! They carry what kubectl reads from them: the shapes with their descriptions (`explain`), list
//! types and merge keys (client-side patches), and the paths with kinds, actions and parameters
//! (which resource has which kind, and who takes `fieldValidation`). They are built when asked
//! for, from the schemas; nothing of them is kept here.

mod paths;
mod protobuf;
mod shapes;

use serde_json::{Map as JsonMap, Value, json};

use crate::graph::Schema;
use shapes::Shapes;

pub use protobuf::encode as protobuf;

/// The media type of the v2 document in protobuf.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What the reply calls it: a media type may not hold an `@`, and clients parse this one.
pub const PROTOBUF_REPLY: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Where descriptions come from. Types are named as published: `io.k8s.api.core.v1.Pod`.
pub trait Descriptions {
    /// Describes a type.
    fn of_type(&self, name: &str) -> Option<String>;

    /// Describes a field of a type.
    fn of_field(&self, name: &str, field: &str) -> Option<String>;
}

/// Group, version and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gvk<'a> {
    /// Group; empty for core.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
}

/// A resource that the documents describe.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// What it is.
    pub gvk: Gvk<'a>,
    /// Its name in paths.
    pub plural: &'a str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What may be done, as `create`, `list`.
    pub verbs: Vec<&'a str>,
    /// The shape of its objects.
    pub schema: &'a Schema,
    /// What hangs below it.
    pub subresources: Vec<Subresource<'a>>,
}

/// A subresource that the documents describe.
#[derive(Clone, Debug)]
pub struct Subresource<'a> {
    /// Its name in paths.
    pub name: &'a str,
    /// What it speaks.
    pub gvk: Gvk<'a>,
    /// What may be done.
    pub verbs: Vec<&'a str>,
    /// The shape of what it speaks; none for streams and text.
    pub schema: Option<Schema>,
}

/// The two forms of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

impl Form {
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => format!("#/definitions/{name}").into(),
            Self::V3 => format!("#/components/schemas/{name}").into(),
        }
    }
}

impl Gvk<'_> {
    fn to_value(self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// The OpenAPI v3 document of the resources of one group and version.
pub fn v3(resources: &[Resource<'_>], descriptions: &dyn Descriptions, version: &str) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": all_paths(Form::V3, resources),
        "components": {
            "schemas": shapes_of(Form::V3, resources, descriptions),
            "securitySchemes": {"BearerToken": security()},
        },
    })
}

/// The OpenAPI v2 document of all resources.
pub fn v2(resources: &[Resource<'_>], descriptions: &dyn Descriptions, version: &str) -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": all_paths(Form::V2, resources),
        "definitions": shapes_of(Form::V2, resources, descriptions),
        "securityDefinitions": {"BearerToken": security()},
        "security": [{"BearerToken": []}],
    })
}

fn security() -> Value {
    let description = "Bearer Token authentication";
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": description})
}

fn all_paths(form: Form, resources: &[Resource<'_>]) -> Value {
    let mut out = JsonMap::new();
    for resource in resources {
        paths::add(form, resource, &mut out);
    }
    Value::Object(out)
}

fn shapes_of(
    form: Form,
    resources: &[Resource<'_>],
    descriptions: &dyn Descriptions,
) -> JsonMap<String, Value> {
    let mut shapes = Shapes::new(form, descriptions);
    for resource in resources {
        shapes.add_kind(resource.schema, resource.gvk);
        shapes.add_list(resource.schema, resource.gvk);
        let meta = resource.schema.graph();
        for name in ["Status", "DeleteOptions"] {
            if let Some(schema) = Schema::named(meta, &format!("meta.v1.{name}")) {
                let kind = Gvk {
                    group: "",
                    version: "v1",
                    kind: name,
                };
                shapes.add_kind(&schema, kind);
            }
        }
        for sub in &resource.subresources {
            if let Some(schema) = &sub.schema {
                shapes.add_kind(schema, sub.gvk);
            }
        }
    }
    shapes.finish()
}
