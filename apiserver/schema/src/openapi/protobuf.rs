//! The v2 document as protobuf, for clients that ask for
//! `com.github.proto-openapi.spec.v2@v1.0+protobuf`: the messages of gnostic's `OpenAPIv2.proto`,
//! written field by field from the JSON form. Only what this crate's documents contain is
//! written.

use serde_json::{Map as JsonMap, Value};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: Message) {
        self.bytes(field, &message.0);
    }

    fn truth(&mut self, field: u64, truth: bool) {
        if truth {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// The text at a key of an object, if there is one.
    fn text(&mut self, field: u64, object: &Value, key: &str) {
        if let Some(text) = object.get(key).and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, object: &Value, key: &str) {
        for text in list(object, key).iter().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    /// `name = 1, value = 2`, as maps are written.
    fn named(&mut self, field: u64, name: &str, value: Message) {
        let mut entry = Message::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, entry);
    }

    /// The fields whose names begin with `x-`.
    fn extensions(&mut self, field: u64, object: &Value) {
        for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, any(value));
        }
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(JsonMap::iter)
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `Any`, of which the YAML form is used: JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

/// `Document`
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document, "swagger");
    let mut info = Message::default();
    info.text(1, &document["info"], "title");
    info.text(2, &document["info"], "version");
    out.message(2, info);
    let mut paths = Message::default();
    for (name, item) in entries(&document["paths"]) {
        paths.named(2, name, path_item(item));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, shape) in entries(&document["definitions"]) {
        definitions.named(1, name, schema(shape));
    }
    out.message(9, definitions);
    out.0
}

/// `PathItem`
fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ] {
        if let Some(found) = item.get(method) {
            out.message(field, operation(found));
        }
    }
    out
}

/// `Operation`
fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.text(5, operation, "operationId");
    out.texts(6, operation, "produces");
    out.texts(7, operation, "consumes");
    for found in list(operation, "parameters") {
        let mut item = Message::default();
        item.message(1, parameter(found));
        out.message(8, item);
    }
    let mut responses = Message::default();
    for (code, found) in entries(&operation["responses"]) {
        let mut value = Message::default();
        value.message(1, response(found));
        responses.named(1, code, value);
    }
    out.message(9, responses);
    out.extensions(13, operation);
    out
}

/// `Parameter`: of a body, of the query or of the path.
fn parameter(parameter: &Value) -> Message {
    let place = parameter.get("in").and_then(Value::as_str);
    let required = parameter.get("required").and_then(Value::as_bool);
    let mut out = Message::default();
    let mut inner = Message::default();
    if place == Some("body") {
        inner.text(2, parameter, "name");
        inner.text(3, parameter, "in");
        inner.truth(4, required.unwrap_or_default());
        inner.message(5, schema(&parameter["schema"]));
        out.message(1, inner);
        return out;
    }
    let (form, kind) = match place {
        Some("path") => (4, 5),
        _ => (3, 6),
    };
    inner.truth(1, required.unwrap_or_default());
    inner.text(2, parameter, "in");
    inner.text(4, parameter, "name");
    inner.text(kind, parameter, "type");
    let mut other = Message::default();
    other.message(form, inner);
    out.message(2, other);
    out
}

/// `Response`
fn response(response: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, response, "description");
    if let Some(shape) = response.get("schema") {
        let mut item = Message::default();
        item.message(1, schema(shape));
        out.message(2, item);
    }
    out
}

/// `Schema`
fn schema(shape: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, shape, "$ref");
    out.text(2, shape, "format");
    out.text(4, shape, "description");
    if let Some(default) = shape.get("default") {
        out.message(5, any(default));
    }
    out.texts(19, shape, "required");
    if let Some(value) = shape.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(value));
        out.message(21, item);
    }
    if shape.get("type").is_some() {
        let mut item = Message::default();
        item.text(1, shape, "type");
        out.message(22, item);
    }
    if let Some(items) = shape.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        out.message(23, item);
    }
    if shape.get("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in entries(&shape["properties"]) {
            properties.named(1, name, schema(property));
        }
        out.message(25, properties);
    }
    out.extensions(31, shape);
    out
}
