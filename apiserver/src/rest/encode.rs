//! From objects to the bytes of an encoding. Stored objects are rewritten from their stored
//! bytes; values are built only where tables and YAML need them.

use bytes::Bytes;
use peapod_schema::cbor;
use peapod_schema::protobuf::{self, Shown};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::negotiate::{Accept, Encoding, Form, MetaVersion};
use super::{pretty, table};
use crate::registry::{Resource, builtin_schema};
use crate::status::{Result, Status};
use crate::storage::{Entry, Messages};

/// The bytes of a stored object as JSON, as this kind shows it: those of the store, except in
/// views of others' objects.
pub fn stored(resource: &Resource, stored: &Bytes) -> Result<Bytes> {
    if resource.kind.stored_as.is_none() {
        return Ok(stored.clone());
    }
    json(&table::decode(resource, stored)?).map(Bytes::from)
}

/// An object, whole or its metadata only, that is given as it is stored.
pub fn object(resource: &Resource, accept: Accept, bytes: &Bytes) -> Result<Bytes> {
    let json = stored(resource, bytes)?;
    if accept.encoding == Encoding::Protobuf {
        let shown = shown(accept.form);
        let body = protobuf::encode(&json, &resource.schema, shown).map_err(Status::internal)?;
        return Ok(body.into());
    }
    let json = match accept.form {
        Form::Metadata => partial(&json, accept.meta)?,
        _ => json,
    };
    from_json(json, accept)
}

/// A stored object, whole or its metadata only.
pub fn entry(
    messages: &Messages,
    resource: &Resource,
    accept: Accept,
    entry: &Entry,
) -> Result<Bytes> {
    if !is_kept(resource, accept) {
        return object(resource, accept, &entry.value);
    }
    let message = messages.of(entry, &resource.schema);
    let message = message.map_err(Status::internal)?;
    let (version, kind) = (&resource.api_version, &resource.kind.kind);
    Ok(protobuf::enveloped(version, kind, &message).into())
}

/// Whether a form of a kind's objects is kept beside them, so that no other form of it should be.
pub fn is_kept(resource: &Resource, accept: Accept) -> bool {
    let whole = accept.encoding == Encoding::Protobuf && accept.form == Form::Object;
    whole && resource.kind.stored_as.is_none()
}

/// How protobuf shows a form.
pub fn shown(form: Form) -> Shown {
    match form {
        Form::Metadata => Shown::Metadata,
        _ => Shown::Object,
    }
}

/// `PartialObjectMetadata` of an object, from JSON to JSON.
pub fn partial(json: &[u8], version: MetaVersion) -> Result<Bytes> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    let object: Object<'_> = serde_json::from_slice(json).map_err(Status::internal)?;
    let metadata = object.metadata.map_or("{}", RawValue::get);
    let version = version.api_version();
    let shown = format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":{metadata}}}"
    );
    Ok(shown.into())
}

/// Any document: an object that is not stored, a table, a refusal.
pub fn value(value: &Value, accept: Accept) -> Result<Bytes> {
    if accept.encoding == Encoding::Yaml {
        return yaml(value).map(Bytes::from);
    }
    let json = Bytes::from(json(value)?);
    if accept.encoding == Encoding::Protobuf {
        return typed(value, &json).map(Bytes::from);
    }
    from_json(json, accept)
}

/// A document as protobuf, by the kind and version that it says it is of.
fn typed(value: &Value, json: &[u8]) -> Result<Vec<u8>> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (shown, schema) = match kind {
        "PartialObjectMetadata" => (Shown::Metadata, builtin_schema("v1", "ConfigMap")),
        _ => (Shown::Object, builtin_schema(version, kind)),
    };
    let schema = schema.filter(protobuf::speaks);
    let schema = schema
        .ok_or_else(|| Status::internal(format!("{kind} of {version:?} has no protobuf form")))?;
    protobuf::encode(json, &schema, shown).map_err(Status::internal)
}

fn from_json(json: Bytes, accept: Accept) -> Result<Bytes> {
    match accept.encoding {
        Encoding::Json if accept.pretty => Ok(pretty::laid_out(&json).into()),
        Encoding::Json | Encoding::Protobuf => Ok(json),
        Encoding::Cbor => cbor::encode(&json)
            .map(Bytes::from)
            .map_err(Status::internal),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
            yaml(&value).map(Bytes::from)
        }
    }
}

/// A value as compact JSON.
pub fn json(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Status::internal)
}

/// A value as YAML.
pub fn yaml(value: &Value) -> Result<Vec<u8>> {
    let text = serde_saphyr::to_string(value).map_err(Status::internal)?;
    Ok(text.into_bytes())
}
