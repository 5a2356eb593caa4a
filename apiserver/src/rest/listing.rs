//! A list on its way out: in any form and encoding, piece by piece as the client reads, so that
//! no list stands in memory as a whole.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use peapod_schema::{cbor, protobuf};
use serde_json::{Map, Value, json};

use super::call::{Call, Reply};
use super::negotiate::{Accept, Encoding, Form};
use super::table::{self, Style};
use super::{encode, pretty};
use crate::api::Api;
use crate::body::{Body, Cut};
use crate::registry::Resource;
use crate::status::{Result, Status};
use crate::storage::{Entry, Messages};

/// How many bytes are sent in one piece.
const CHUNK: usize = 32 * 1024;
/// How many bytes of messages are kept of the pass that finds the length of a list in protobuf,
/// beside those that are kept anyway; what is more is made twice.
const AHEAD_MAX: usize = 4 * 1024 * 1024;
/// From how many items on that pass is not made on a thread that serves others.
const LONG: usize = 500;

/// The objects of a list.
pub enum Items {
    /// Those of the store.
    Stored(Vec<Entry>),
    /// Such as come about when they are asked for, as JSON.
    Made(Vec<Bytes>),
}

/// A list, before it is written.
pub struct Listing {
    resource: Arc<Resource>,
    accept: Accept,
    style: Style,
    now: Timestamp,
    /// `metadata` of the list.
    meta: Value,
    messages: Messages,
    items: Items,
}

// === impl Items ===

impl Items {
    fn len(&self) -> usize {
        match self {
            Self::Stored(entries) => entries.len(),
            Self::Made(objects) => objects.len(),
        }
    }
}

// === impl Listing ===

impl Listing {
    /// The list that a call is answered with.
    pub fn of(api: &Api, call: &Call, meta: Value, items: Items) -> Result<Self> {
        Ok(Self {
            resource: call.resource.clone(),
            accept: call.accept,
            style: Style::of(call)?,
            now: api.now(),
            meta,
            messages: api.messages.clone(),
            items,
        })
    }

    /// The answer. What is wrong with the first objects is told as a refusal; later faults end
    /// the connection, so that no client takes the half for the whole.
    pub async fn reply(self) -> Result<Reply> {
        let content_type = self.accept.encoding.content_type();
        let body = match self.accept.encoding {
            Encoding::Protobuf if self.items.len() >= LONG => {
                let found = tokio::task::spawn_blocking(|| self.protobuf()).await;
                found.map_err(Status::internal)??
            }
            Encoding::Protobuf => self.protobuf()?,
            _ => self.framed()?,
        };
        let body = body.settle(CHUNK).map_err(Status::internal)?;
        Ok(Reply::of(StatusCode::OK, content_type, body))
    }

    /// The JSON of an object, as this kind shows it.
    fn json(&self, at: usize) -> Result<Bytes> {
        match &self.items {
            Items::Stored(entries) => encode::stored(&self.resource, &entries[at].value),
            Items::Made(objects) => Ok(objects[at].clone()),
        }
    }

    /// The JSON of what the list shows of an object.
    fn shown(&self, at: usize) -> Result<Bytes> {
        let object = self.json(at)?;
        match self.accept.form {
            Form::Metadata => encode::partial(&object, self.style.version),
            Form::Table => {
                let object = serde_json::from_slice(&object).map_err(Status::internal)?;
                let row = table::row(&self.resource.kind, object, self.style, self.now);
                encode::json(&row).map(Bytes::from)
            }
            _ => Ok(object),
        }
    }

    /// Kind and version of the list.
    fn of_type(&self) -> (&str, &str) {
        match self.accept.form {
            Form::Metadata => (
                self.style.version.api_version(),
                "PartialObjectMetadataList",
            ),
            _ => (&self.resource.api_version, &self.resource.kind.list_kind),
        }
    }

    /// The fields of the list but its items, and the name of those.
    fn fields(&self) -> (Map<String, Value>, &'static str) {
        let (mut list, items) = match self.accept.form {
            Form::Table => (
                table::table(
                    &self.resource.kind,
                    self.style.version,
                    self.meta.clone(),
                    true,
                ),
                "rows",
            ),
            _ => {
                let (version, kind) = self.of_type();
                let list = json!({"kind": kind, "apiVersion": version, "metadata": self.meta});
                (list, "items")
            }
        };
        let fields = list.as_object_mut().map(std::mem::take);
        let mut fields = fields.unwrap_or_default();
        fields.remove(items);
        (fields, items)
    }

    /// In encodings that frame items by what stands before, between and behind them.
    fn framed(self) -> Result<Body> {
        let frame = Frame::of(&self)?;
        let size = self.size(&frame);
        let count = self.items.len();
        let mut layout = self.is_pretty().then(pretty::Layout::default);
        let mut next = 0;
        let pieces = std::iter::from_fn(move || {
            let mut piece = Vec::with_capacity(CHUNK);
            while piece.len() < CHUNK && next <= count {
                if let Err(fault) = self.append(&frame, next, &mut piece) {
                    next = count + 1;
                    return Some(Err(Cut::new(fault)));
                }
                next += 1;
            }
            if let Some(layout) = &mut layout {
                piece = layout.piece(&piece);
            }
            (!piece.is_empty()).then(|| Ok(piece.into()))
        });
        Ok(Body::lazy(pieces, size))
    }

    fn is_pretty(&self) -> bool {
        self.accept.encoding == Encoding::Json && self.accept.pretty
    }

    /// The exact length, where it is known without writing the list.
    fn size(&self, frame: &Frame) -> Option<u64> {
        let plain = self.accept.encoding == Encoding::Json
            && self.accept.form == Form::Object
            && !self.accept.pretty;
        if !plain || self.resource.kind.stored_as.is_some() {
            return None;
        }
        let objects: usize = match &self.items {
            Items::Stored(entries) => entries.iter().map(|entry| entry.value.len()).sum(),
            Items::Made(objects) => objects.iter().map(Bytes::len).sum(),
        };
        let commas = self.items.len().saturating_sub(1);
        Some((frame.head.len() + objects + commas + frame.end.len()) as u64)
    }

    /// Appends the item at a place, with what stands before it; behind the last one, the end.
    fn append(&self, frame: &Frame, at: usize, out: &mut Vec<u8>) -> Result<()> {
        if at == 0 {
            out.extend_from_slice(&frame.head);
        }
        if at == self.items.len() {
            out.extend_from_slice(frame.end);
            return Ok(());
        }
        if at > 0 {
            out.extend_from_slice(frame.between);
        }
        let item = self.shown(at)?;
        match self.accept.encoding {
            Encoding::Cbor => cbor::append_item(&item, out).map_err(Status::internal)?,
            Encoding::Yaml => {
                let value: Value = serde_json::from_slice(&item).map_err(Status::internal)?;
                out.extend_from_slice(&encode::yaml(&vec![value].into())?);
            }
            Encoding::Json | Encoding::Protobuf => out.extend_from_slice(&item),
        }
        Ok(())
    }

    /// In protobuf, where the length of the whole stands before it: so the messages are made, or
    /// found where they are kept, before the first octet is sent.
    fn protobuf(self) -> Result<Body> {
        let (mut length, mut ahead) = (0, 0);
        let mut made = Vec::with_capacity(self.items.len());
        for at in 0..self.items.len() {
            let message = self.message(at)?;
            length += protobuf::item_len(message.len());
            let is_kept = self.is_kept(at);
            ahead += if is_kept { 0 } else { message.len() };
            made.push((is_kept || ahead <= AHEAD_MAX).then_some(message));
        }
        let (version, kind) = self.of_type();
        let meta = encode::json(&self.meta)?;
        let schema = &self.resource.schema;
        let head = protobuf::list_head(version, kind, &meta, schema, length);
        let head = head.map_err(Status::internal)?;
        let size = (head.len() + length) as u64;
        let mut next = 0;
        let pieces = std::iter::from_fn(move || {
            let mut piece = Vec::with_capacity(CHUNK);
            while piece.len() < CHUNK && next < made.len() {
                match made[next].take().map_or_else(|| self.message(next), Ok) {
                    Ok(message) => protobuf::append_item(&message, &mut piece),
                    Err(fault) => {
                        next = made.len();
                        return Some(Err(Cut::new(fault)));
                    }
                }
                next += 1;
            }
            (!piece.is_empty()).then(|| Ok(piece.into()))
        });
        let head = std::iter::once(Ok(Bytes::from(head)));
        Ok(Body::lazy(head.chain(pieces), Some(size)))
    }

    /// The protobuf message of what the list shows of an object.
    fn message(&self, at: usize) -> Result<Bytes> {
        let schema = &self.resource.schema;
        let made = match &self.items {
            Items::Stored(entries) if encode::is_kept(&self.resource, self.accept) => {
                self.messages.of(&entries[at], schema)
            }
            _ => {
                let shown = encode::shown(self.accept.form);
                protobuf::message(&self.json(at)?, schema, shown).map(Bytes::from)
            }
        };
        made.map_err(Status::internal)
    }

    /// Whether the message is kept beside the object in any case.
    fn is_kept(&self, at: usize) -> bool {
        match &self.items {
            Items::Stored(entries) => {
                encode::is_kept(&self.resource, self.accept) && Messages::keeps(&entries[at])
            }
            Items::Made(_) => false,
        }
    }
}

/// What stands before, between and behind items.
struct Frame {
    head: Vec<u8>,
    between: &'static [u8],
    end: &'static [u8],
}

// === impl Frame ===

impl Frame {
    fn of(listing: &Listing) -> Result<Self> {
        let (fields, items) = listing.fields();
        Ok(match listing.accept.encoding {
            Encoding::Cbor => Self {
                head: cbor::list_head(&fields, items).map_err(Status::internal)?,
                between: b"",
                end: cbor::LIST_END,
            },
            Encoding::Yaml => {
                let empty = if listing.items.len() == 0 { " []" } else { "" };
                let mut head = encode::yaml(&Value::Object(fields))?;
                head.extend_from_slice(format!("{items}:{empty}\n").as_bytes());
                Self {
                    head,
                    between: b"",
                    end: b"",
                }
            }
            Encoding::Json | Encoding::Protobuf => {
                let mut head = encode::json(&Value::Object(fields))?;
                head.pop();
                head.extend_from_slice(format!(",\"{items}\":[").as_bytes());
                Self {
                    head,
                    between: b",",
                    end: b"]}\n",
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use http_body_util::BodyExt;

    fn listing(count: usize, encoding: Encoding, form: Form) -> Listing {
        let registry = Registry::builtin().unwrap();
        let object = |at| {
            let data = "x".repeat(20_000);
            let map = json!({"metadata": {"name": format!("m{at}")}, "data": {"k": data}});
            Bytes::from(map.to_string())
        };
        Listing {
            resource: registry.find("", "v1", "configmaps").unwrap(),
            accept: Accept {
                encoding,
                form,
                ..Accept::default()
            },
            style: Style::default(),
            now: Timestamp::UNIX_EPOCH,
            meta: json!({"resourceVersion": "1"}),
            messages: Messages::default(),
            items: Items::Made((0..count).map(object).collect()),
        }
    }

    /// The pieces of a body: their number, the size of the largest, and all of it.
    async fn read(listing: Listing) -> (Option<u64>, usize, Vec<u8>) {
        let mut body = listing.reply().await.unwrap().body;
        let (promised, mut largest, mut all) = (body.size(), 0, Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            largest = largest.max(data.len());
            all.extend_from_slice(&data);
        }
        (promised, largest, all)
    }

    #[tokio::test]
    async fn a_long_list_is_written_in_pieces() {
        let (promised, largest, all) = read(listing(600, Encoding::Json, Form::Object)).await;
        assert_eq!(promised, Some(all.len() as u64));
        assert!(largest < 2 * CHUNK);
        let list: Value = serde_json::from_slice(&all).unwrap();
        assert_eq!(list["items"][599]["metadata"]["name"], "m599");
        let (_, largest, all) = read(listing(600, Encoding::Cbor, Form::Object)).await;
        assert!(largest < 2 * CHUNK);
        let list = cbor::decode(&all).unwrap().value;
        assert_eq!(list["items"].as_array().unwrap().len(), 600);
    }

    #[tokio::test]
    async fn what_is_written_twice_in_protobuf_is_the_same() {
        let (promised, _, all) = read(listing(600, Encoding::Protobuf, Form::Object)).await;
        assert!(all.len() > 2 * AHEAD_MAX);
        assert_eq!(promised, Some(all.len() as u64));
        let schema = crate::registry::builtin_schema("v1", "ConfigMapList").unwrap();
        let list = protobuf::decode(&all, &schema).unwrap().value;
        let names = list["items"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|item| item["metadata"]["name"].clone()).collect();
        let expected: Vec<Value> = (0..600).map(|at| format!("m{at}").into()).collect();
        assert_eq!(names, expected);
    }

    #[tokio::test]
    async fn a_fault_is_told_or_cuts_the_body() {
        let with = |at: usize| {
            let mut listing = listing(10, Encoding::Cbor, Form::Metadata);
            if let Items::Made(objects) = &mut listing.items {
                objects[at] = "[".into();
            }
            listing
        };
        assert_eq!(with(0).reply().await.err().unwrap().code, 500);
        let mut long = listing(600, Encoding::Cbor, Form::Object);
        if let Items::Made(objects) = &mut long.items {
            objects[599] = "[".into();
        }
        let body = long.reply().await.unwrap().body;
        assert!(body.collect().await.is_err());
    }
}
