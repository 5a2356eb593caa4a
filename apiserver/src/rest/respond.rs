//! From a stored object to the reply: in the form and encoding that the client asked for.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::call::{Call, Reply};
use super::encode;
use super::negotiate::Form;
use super::table::{self, Style};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;
use crate::storage::Entry;

/// The reply that shows one stored object. Bytes go out as they are where they can.
pub fn object(api: &Api, call: &Call, code: StatusCode, bytes: Bytes) -> Result<Reply> {
    if call.accept.form != Form::Table {
        let body = encode::object(&call.resource, call.accept, &bytes)?;
        return Ok(Reply::of(code, call.accept.encoding.content_type(), body));
    }
    let object = table::decode(&call.resource, &bytes)?;
    value(api, call, code, object)
}

/// The reply that shows one object of the store.
pub fn entry(api: &Api, call: &Call, entry: &Entry) -> Result<Reply> {
    if call.accept.form == Form::Table {
        return object(api, call, StatusCode::OK, entry.value.clone());
    }
    let body = encode::entry(&api.messages, &call.resource, call.accept, entry)?;
    let content_type = call.accept.encoding.content_type();
    Ok(Reply::of(StatusCode::OK, content_type, body))
}

/// The reply that shows one object.
pub fn value(api: &Api, call: &Call, code: StatusCode, object: Value) -> Result<Reply> {
    let shown = match call.accept.form {
        Form::Table if object["kind"] != "Status" => one_row(api, call, object)?,
        Form::Metadata if object["kind"] != "Status" => table::partial(object, call.accept.meta),
        _ => object,
    };
    let body = encode::value(&shown, call.accept)?;
    Ok(Reply::of(code, call.accept.encoding.content_type(), body))
}

fn one_row(api: &Api, call: &Call, object: Value) -> Result<Value> {
    let style = Style::of(call)?;
    let meta = serde_json::json!({
        "resourceVersion": value::text(&object, "metadata.resourceVersion"),
    });
    let mut out = table::table(call.kind(), style.version, meta, true);
    out["rows"] = vec![table::row(call.kind(), object, style, api.now())].into();
    Ok(out)
}
