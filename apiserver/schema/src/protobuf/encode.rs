//! From JSON bytes to protobuf, in one pass: the shape says which field is next, and no value of
//! the object is built.
//!
//! What JSON leaves out is not written. Go writes fields that are no pointers even when they are
//! zero, but reads them as zero where they are missing.

use std::borrow::Cow;
use std::fmt::{self, Display};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::graph::{Node, Scalar, Schema, Type};
use crate::wire::Message;

use super::{MAGIC, ProtobufError, json_schema};
use crate::numbers::{Form, Way};

/// What is shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    Object,
    /// `meta.k8s.io/v1 PartialObjectMetadata`: its metadata.
    Metadata,
}

/// Writes an object as a body of its own.
pub fn encode(json: &[u8], schema: &Schema, shown: Shown) -> Result<Vec<u8>, ProtobufError> {
    let mut raw = Message(Vec::with_capacity(json.len()));
    let of_type = write(json, schema, shown, &mut raw)?;
    let (version, kind) = match shown {
        Shown::Object => (of_type.api_version, of_type.kind),
        Shown::Metadata => (
            "meta.k8s.io/v1".to_owned(),
            "PartialObjectMetadata".to_owned(),
        ),
    };
    Ok(enveloped(&version, &kind, &raw.0))
}

/// Writes an object as a message without its envelope.
pub fn message(json: &[u8], schema: &Schema, shown: Shown) -> Result<Vec<u8>, ProtobufError> {
    let mut raw = Message(Vec::with_capacity(json.len()));
    write(json, schema, shown, &mut raw)?;
    raw.0.shrink_to_fit();
    Ok(raw.0)
}

/// A message as a body of its own.
pub fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope(api_version, kind, message.len());
    out.0.extend_from_slice(message);
    out.0
}

/// Writes a message as the next item of a list.
pub fn append_item(message: &[u8], out: &mut Vec<u8>) {
    let mut list = Message(std::mem::take(out));
    list.bytes(2, message);
    *out = list.0;
}

/// How many bytes a message takes as an item of a list.
pub fn item_len(message: usize) -> usize {
    let mut head = Message::default();
    head.head(2, message);
    head.0.len() + message
}

/// What stands before the items of a list, which take `items` bytes. Its metadata is JSON.
pub fn list_head(
    api_version: &str,
    kind: &str,
    meta: &[u8],
    schema: &Schema,
    items: usize,
) -> Result<Vec<u8>, ProtobufError> {
    let graph = schema.graph();
    let node = graph.find("meta.v1.ListMeta").map(|id| graph.node(id));
    let mut head = Message::default();
    if let Some(node) = node {
        let open = head.open(1);
        run(meta, Fields::of(node, &mut head))?;
        head.close(open);
    }
    let mut out = envelope(api_version, kind, head.0.len() + items);
    out.0.extend_from_slice(&head.0);
    Ok(out.0)
}

/// One event of a watch, whose object is a body of its own: a frame of four bytes of length and a
/// `WatchEvent {1: type, 2: {1: object}}`.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut inner = Message::default();
    inner.head(1, object.len());
    let mut event = Message::default();
    event.bytes(1, kind.as_bytes());
    event.head(2, inner.0.len() + object.len());
    event.0.extend_from_slice(&inner.0);
    let length = u32::try_from(event.0.len() + object.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), event.0.as_slice(), object].concat()
}

/// What stands before the message of an object or a list, which takes `len` bytes.
fn envelope(api_version: &str, kind: &str, len: usize) -> Message {
    let mut out = Message(Vec::with_capacity(64 + len));
    out.0.extend_from_slice(MAGIC);
    let of_type = out.open(1);
    out.bytes(1, api_version.as_bytes());
    out.bytes(2, kind.as_bytes());
    out.close(of_type);
    out.head(2, len);
    out
}

fn write(
    json: &[u8],
    schema: &Schema,
    shown: Shown,
    out: &mut Message,
) -> Result<OfType, ProtobufError> {
    let mut fields = Fields::of(schema.root(), out);
    fields.only = match shown {
        Shown::Object => None,
        Shown::Metadata => Some("metadata"),
    };
    run(json, fields)
}

fn run<'de, S: DeserializeSeed<'de>>(json: &'de [u8], seed: S) -> Result<S::Value, ProtobufError> {
    seed.deserialize(&mut serde_json::Deserializer::from_slice(json))
        .map_err(|fault| ProtobufError::Shape(fault.to_string()))
}

/// Kind and version of an object, which do not stand in its message.
#[derive(Debug, Default)]
struct OfType {
    api_version: String,
    kind: String,
}

/// Writes the fields of an object into the message of it.
struct Fields<'a, 'o> {
    node: Node<'a>,
    out: &'o mut Message,
    /// The field that alone is written; the message is then `{1: that field}`.
    only: Option<&'static str>,
}

/// Writes a value as the field of a number.
struct Put<'a, 'o> {
    number: u32,
    node: Node<'a>,
    form: Form,
    out: &'o mut Message,
}

// === impl Fields ===

impl<'a, 'o> Fields<'a, 'o> {
    fn of(node: Node<'a>, out: &'o mut Message) -> Self {
        Self {
            node,
            out,
            only: None,
        }
    }

    /// How a field is written, and its type; `None` for those that are not written.
    fn wanted(&self, name: &str) -> Option<(&'a [u32], Form, Node<'a>)> {
        let Type::Object(object) = self.node.ty() else {
            return None;
        };
        match self.only {
            Some(only) if only != name => None,
            Some(_) => Some((&[1], Form::Plain, self.node.child(name)?)),
            None => {
                let field = object.field(name)?;
                let Way { numbers, form } = field.way?;
                Some((numbers, *form, self.node.to(field.ty)))
            }
        }
    }

    /// Writes a field; kind and version are given back.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        of_type: &mut OfType,
    ) -> Result<(), A::Error> {
        match self.wanted(name) {
            Some((way, form, node)) => {
                let along = Along {
                    way,
                    node,
                    form,
                    out: self.out,
                };
                map.next_value_seed(along)
            }
            _ if name == "kind" => map.next_value().map(|kind| of_type.kind = kind),
            _ if name == "apiVersion" => map.next_value().map(|text| of_type.api_version = text),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Fields<'_, '_> {
    type Value = OfType;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<OfType, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = OfType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of type {}", self.node.go_name())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<OfType, A::Error> {
        let mut of_type = OfType::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            self.field(&name, &mut map, &mut of_type)?;
        }
        Ok(of_type)
    }
}

/// Writes a value along the numbers that lead to it. Messages on the way are repeated for each of
/// their fields, which readers join.
struct Along<'a, 'w, 'o> {
    way: &'w [u32],
    node: Node<'a>,
    form: Form,
    out: &'o mut Message,
}

impl<'de> DeserializeSeed<'de> for Along<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self.way {
            [] => Err(D::Error::custom("a field without a number")),
            &[number] => {
                let put = Put {
                    number,
                    node: self.node,
                    form: self.form,
                    out: self.out,
                };
                put.deserialize(reader)
            }
            [number, way @ ..] => {
                let start = self.out.0.len();
                let open = self.out.open(*number);
                let inside = self.out.0.len();
                let along = Along {
                    way,
                    out: &mut *self.out,
                    ..self
                };
                along.deserialize(reader)?;
                if self.out.0.len() == inside {
                    self.out.0.truncate(start);
                } else {
                    self.out.close(open);
                }
                Ok(())
            }
        }
    }
}

// === impl Put ===

impl<'a> Put<'a, '_> {
    /// The same in a message of its own.
    fn at(&mut self, number: u32, node: Node<'a>) -> Put<'a, '_> {
        Put {
            number,
            node,
            form: self.form,
            out: self.out,
        }
    }

    fn plain(&mut self, number: u32, node: Node<'a>) -> Put<'a, '_> {
        Put {
            form: Form::Plain,
            ..self.at(number, node)
        }
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        let Type::Scalar(scalar) = self.node.ty() else {
            return Err(self.unfit(&"text"));
        };
        match scalar {
            Scalar::String => self.out.bytes(self.number, text.as_bytes()),
            Scalar::Bytes => {
                let bytes = STANDARD.decode(text).map_err(E::custom)?;
                self.out.bytes(self.number, &bytes);
            }
            Scalar::Quantity => {
                let open = self.out.open(self.number);
                self.out.bytes(1, text.as_bytes());
                self.out.close(open);
            }
            Scalar::IntOrString | Scalar::Int64OrString => {
                let open = self.out.open(self.number);
                self.out.number(1, 1);
                self.out.bytes(3, text.as_bytes());
                self.out.close(open);
            }
            Scalar::Time | Scalar::MicroTime => {
                let at: jiff::Timestamp = text.parse().map_err(E::custom)?;
                let open = self.out.open(self.number);
                self.out.number(1, at.as_second());
                if at.subsec_nanosecond() != 0 {
                    self.out.number(2, i64::from(at.subsec_nanosecond()));
                }
                self.out.close(open);
            }
            _ => return Err(self.unfit(&"text")),
        }
        Ok(())
    }

    fn integer<E: Error>(self, value: i64) -> Result<(), E> {
        match self.node.ty() {
            Type::Scalar(Scalar::Int32 | Scalar::Int64) => self.out.number(self.number, value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON's numbers are doubles in Go"
            )]
            Type::Scalar(Scalar::Number) => self.out.double(self.number, value as f64),
            Type::Scalar(Scalar::IntOrString | Scalar::Int64OrString) => {
                let open = self.out.open(self.number);
                self.out.number(2, value);
                self.out.close(open);
            }
            Type::Scalar(Scalar::Quantity) => return self.text(&value.to_string()),
            _ => return Err(self.unfit(&"a number")),
        }
        Ok(())
    }

    fn unfit<E: Error>(&self, what: &dyn Display) -> E {
        E::custom(format_args!("{what} where {} must be", self.node.go_name()))
    }

    /// Embedded JSON: a message whose first field is its text.
    fn embedded<'de, D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let raw = <&RawValue>::deserialize(reader)?;
        if raw.get() != "null" {
            let open = self.out.open(self.number);
            self.out.bytes(1, raw.get().as_bytes());
            self.out.close(open);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Put<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match (self.node.ty(), self.form) {
            (Type::Scalar(Scalar::Any), Form::Plain) => self.embedded(reader),
            _ => reader.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Put<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node.go_name())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        match (self.node.ty(), self.form) {
            (Type::Scalar(Scalar::Bool), _) => self.out.number(self.number, i64::from(truth)),
            (_, Form::SchemaOrTruth) => {
                let open = self.out.open(self.number);
                self.out.number(1, i64::from(truth));
                self.out.close(open);
            }
            _ => return Err(self.unfit(&"a boolean")),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(E::custom)?;
        self.integer(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.node.ty() {
            Type::Scalar(Scalar::Number) => self.out.double(self.number, value),
            _ => return Err(self.unfit(&value)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.form != Form::Plain {
            let open = self.out.open(self.number);
            let schema = json_schema(self.node);
            match self.form {
                Form::SchemaOrList => {
                    while items.next_element_seed(self.plain(2, schema))?.is_some() {}
                }
                Form::Wrapped => {
                    let item = self.node.item().unwrap_or(self.node);
                    while items.next_element_seed(self.plain(1, item))?.is_some() {}
                }
                _ => {
                    while let Some(text) = items.next_element::<Cow<'de, str>>()? {
                        self.out.bytes(2, text.as_bytes());
                    }
                }
            }
            self.out.close(open);
            return Ok(());
        }
        let Some(item) = self.node.item() else {
            return Err(self.unfit(&"a list"));
        };
        let number = self.number;
        while items.next_element_seed(self.at(number, item))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if let (Type::Map(of), node) = (self.node.ty(), self.node) {
            let value = node.to(of.value);
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                let open = self.out.open(self.number);
                self.out.bytes(1, key.as_bytes());
                map.next_value_seed(Listed(self.at(2, value)))?;
                self.out.close(open);
            }
            return Ok(());
        }
        let open = self.out.open(self.number);
        let reader = serde::de::value::MapAccessDeserializer::new(map);
        match (self.node.ty(), self.form) {
            (Type::Object(_), _) => {
                Fields::of(self.node, self.out).deserialize(reader)?;
            }
            (_, Form::Empty) => {
                IgnoredAny::deserialize(reader)?;
            }
            (_, Form::SchemaOrTruth) => {
                self.out.number(1, 1);
                let schema = json_schema(self.node);
                self.plain(2, schema).deserialize(reader)?;
            }
            (_, Form::SchemaOrList | Form::SchemaOrTexts) => {
                let schema = json_schema(self.node);
                self.plain(1, schema).deserialize(reader)?;
            }
            _ => return Err(self.unfit(&"an object")),
        }
        self.out.close(open);
        Ok(())
    }
}

/// The value of a map: a list there is a message whose only field is the list's.
struct Listed<'a, 'o>(Put<'a, 'o>);

impl<'de> DeserializeSeed<'de> for Listed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let mut put = self.0;
        if !matches!(put.node.ty(), Type::List(_)) {
            return put.deserialize(reader);
        }
        let open = put.out.open(put.number);
        let node = put.node;
        put.plain(1, node).deserialize(reader)?;
        put.out.close(open);
        Ok(())
    }
}
