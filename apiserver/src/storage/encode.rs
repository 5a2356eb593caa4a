//! From an object to the bytes that every client will get.

use peapod_store::Draft;
use serde_json::{Map, Value};

/// Encodes an object as compact JSON in which the decimal revision is still to be inserted, as
/// `metadata.resourceVersion`. A resourceVersion that the object holds is left out.
pub fn draft(object: &Value) -> serde_json::Result<Draft> {
    let mut bytes = Vec::with_capacity(2048);
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let mut revision_at = 0;
    bytes.push(b'{');
    for (key, value) in fields.iter().filter(|(key, _)| *key != "metadata") {
        field(&mut bytes, key, value)?;
        bytes.push(b',');
    }
    bytes.extend_from_slice(b"\"metadata\":{");
    let meta = fields.get("metadata").and_then(Value::as_object);
    for (key, value) in meta.into_iter().flatten() {
        if key != "resourceVersion" {
            field(&mut bytes, key, value)?;
            bytes.push(b',');
        }
    }
    bytes.extend_from_slice(b"\"resourceVersion\":\"");
    revision_at += bytes.len();
    bytes.extend_from_slice(b"\"}}");
    let revision_at = u32::try_from(revision_at).unwrap_or(u32::MAX);
    Ok(Draft::new(bytes, revision_at))
}

fn field(bytes: &mut Vec<u8>, key: &str, value: &Value) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    serde_json::to_writer(bytes, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_store::Revision;
    use serde_json::json;

    #[test]
    fn the_revision_is_inserted() {
        for object in [
            json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "3"}, "spec": {"x": [1, "\n"]}}),
            json!({"metadata": {}}),
            json!({"kind": "x"}),
        ] {
            let bytes = draft(&object).unwrap().finish(Revision(42));
            let mut expected = object.clone();
            expected["metadata"]["resourceVersion"] = "42".into();
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, expected);
        }
    }
}
