//! The forms of objects that clients ask for beside the objects themselves: tables, metadata
//! only.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::negotiate::{Form, MetaVersion};
use crate::registry::{Kind, Resource};
use crate::status::{Result, Status};

/// How much of each object a table's rows carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// How tables and metadata are made for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// How much of each object rows carry.
    pub include: IncludeObject,
    /// Which version of `meta.k8s.io` the client asked for.
    pub version: MetaVersion,
}

// === impl Style ===

impl Style {
    /// What a call asks for. `includeObject` is looked at for tables only.
    ///
    /// # Errors
    /// 400 for an `includeObject` that is none.
    pub fn of(call: &Call) -> Result<Self> {
        let include = match call.accept.form {
            Form::Table => IncludeObject::parse(call.query.get("includeObject"))?,
            _ => IncludeObject::default(),
        };
        Ok(Self {
            include,
            version: call.accept.meta,
        })
    }
}

// === impl IncludeObject ===

impl IncludeObject {
    /// Reads `includeObject`.
    fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
    }
}

/// A table without rows.
pub fn table(kind: &Kind, version: MetaVersion, list_meta: Value, with_columns: bool) -> Value {
    let columns: Vec<Value> = match with_columns {
        false => Vec::new(),
        true => kind
            .columns
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.kind,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect(),
    };
    json!({
        "kind": "Table",
        "apiVersion": version.api_version(),
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": [],
    })
}

/// The row of an object.
pub fn row(kind: &Kind, object: Value, style: Style, now: Timestamp) -> Value {
    let cells: Vec<Value> = kind
        .columns
        .iter()
        .map(|column| column.cell(&object, now))
        .collect();
    let shown = match style.include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial(object, style.version),
        IncludeObject::Object => object,
    };
    json!({"cells": cells, "object": shown})
}

/// `PartialObjectMetadata` of an object.
pub fn partial(mut object: Value, version: MetaVersion) -> Value {
    let metadata = match object.get_mut("metadata") {
        Some(metadata) => metadata.take(),
        None => json!({}),
    };
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": metadata,
    })
}

/// Reads an object of the store, as this kind's view of it.
pub fn decode(resource: &Resource, bytes: &[u8]) -> Result<Value> {
    let mut object: Value = serde_json::from_slice(bytes)
        .map_err(|fault| Status::internal(format!("a stored object is unreadable: {fault}")))?;
    if resource.kind.stored_as.is_some() {
        view(resource, &mut object)?;
    }
    Ok(object)
}

/// Turns a stored object into this kind's view of it.
fn view(resource: &Resource, object: &mut Value) -> Result<()> {
    let viewed = resource.kind.rules.view(object);
    viewed.map_err(Status::internal)?;
    object["apiVersion"] = resource.api_version.as_str().into();
    object["kind"] = resource.kind.kind.as_str().into();
    Ok(())
}

/// The metadata of a list, as a JSON object.
pub fn list_meta(revision: u64, continue_token: &str, remaining: Option<usize>) -> Value {
    let mut meta = Map::new();
    meta.insert("resourceVersion".into(), revision.to_string().into());
    if !continue_token.is_empty() {
        meta.insert("continue".into(), continue_token.into());
    }
    if let Some(remaining) = remaining {
        meta.insert("remainingItemCount".into(), remaining.into());
    }
    Value::Object(meta)
}
