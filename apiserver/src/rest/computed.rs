//! Lists of objects that are not in the store but come about when they are asked for.

use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::negotiate::Form;
use super::table;
use crate::api::Api;
use crate::status::Result;

/// The list of these objects, in the form and the encoding that the call asks for. The objects are
/// held in memory at once: whoever makes them bounds their number.
pub fn list(api: &Api, call: &Call, meta: Value, items: Vec<Value>) -> Result<Reply> {
    let kind = call.kind();
    let list = match call.accept.form {
        Form::Table => {
            let include = table::IncludeObject::parse(call.query.get("includeObject"))?;
            let now = api.now();
            let rows = items
                .into_iter()
                .map(|item| table::row(kind, item, include, now));
            let mut out = table::table(kind, meta, true);
            out["rows"] = rows.collect();
            out
        }
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "items": items.into_iter().map(table::partial).collect::<Vec<_>>(),
        }),
        _ => json!({
            "kind": kind.list_kind,
            "apiVersion": call.resource.api_version,
            "metadata": meta,
            "items": items,
        }),
    };
    let encoding = call.accept.encoding;
    let body = table::encode(&list, encoding)?;
    Ok(Reply::of(StatusCode::OK, encoding.content_type(), body))
}
