//! What views ask the API for.

use anyhow::Result;
use serde_json::Value;

use super::Context;
use crate::client::{Session, optional};

/// Most items of a page.
const PAGE: usize = 500;

/// All items of a list, page by page. `path` may have a query.
pub async fn list(session: &Session, path: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut token = String::new();
    let joint = if path.contains('?') { '&' } else { '?' };
    loop {
        let mut page = format!("{path}{joint}limit={PAGE}");
        if !token.is_empty() {
            page.push_str(&format!("&continue={token}"));
        }
        let mut reply = session.get(&page).await?;
        if let Some(list) = reply["items"].as_array_mut() {
            items.append(list);
        }
        match reply["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = encoded(next),
            _ => return Ok(items),
        }
    }
}

/// As [`list`]; nothing where the server does not know the kind.
pub async fn list_if_served(session: &Session, path: &str) -> Result<Vec<Value>> {
    Ok(optional(list(session, path).await.map(Value::from))?
        .and_then(|items| items.as_array().cloned())
        .unwrap_or_default())
}

/// The objects of a namespaced kind: in the namespace of the session, or in all.
pub async fn namespaced(context: &Context, base: &str, plural: &str) -> Result<Vec<Value>> {
    let path = match context.all_namespaces {
        true => format!("{base}/{plural}"),
        false => format!("{base}/namespaces/{}/{plural}", context.session.namespace()),
    };
    list(&context.session, &path).await
}

/// A word for a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// The text at a pointer; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a pointer; empty where there is none.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// `namespace/name` of an object.
pub fn key(object: &Value) -> String {
    let (namespace, name) = (
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name"),
    );
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("spec.node=a b/ü"), "spec.node%3Da%20b%2F%C3%BC");
    }
}
