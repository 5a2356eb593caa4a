//! Events in the form and encoding that a client asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use peapod_schema::{cbor, protobuf};
use serde_json::{Value, json};

use crate::registry::Resource;
use crate::rest::call::Call;
use crate::rest::encode;
use crate::rest::negotiate::{Accept, Encoding, Form};
use crate::rest::table::{self, Style};
use crate::status::Result;

/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Writes the events of one watch.
pub struct Lines {
    resource: Arc<Resource>,
    accept: Accept,
    style: Style,
    /// Whether a table with columns has been sent.
    has_columns: bool,
}

// === impl Lines ===

impl Lines {
    /// For a call.
    ///
    /// # Errors
    /// 400 for options of tables that are none.
    pub fn of(call: &Call) -> Result<Self> {
        Ok(Self {
            resource: call.resource.clone(),
            accept: Accept {
                pretty: false,
                ..call.accept
            },
            style: Style::of(call)?,
            has_columns: false,
        })
    }

    /// The kind of the objects.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// What the client takes.
    pub fn accept(&self) -> Accept {
        self.accept
    }

    /// What is shown of objects.
    pub fn form(&self) -> Form {
        self.accept.form
    }

    /// A stored object as the client sees it, made for this watch only.
    pub fn body(&mut self, stored: &Bytes) -> Result<Bytes> {
        match self.accept.form {
            Form::Table => {
                let object = table::decode(&self.resource, stored)?;
                encode::value(&self.row(object), self.accept)
            }
            _ => encode::object(&self.resource, self.accept, stored),
        }
    }

    /// Writes an event of an object that is not stored.
    pub fn object(&mut self, out: &mut BytesMut, kind: &str, object: Value) {
        let shown = match self.accept.form {
            Form::Table => self.row(object),
            Form::Metadata => table::partial(object, self.style.version),
            _ => object,
        };
        self.document(out, kind, &shown);
    }

    /// Writes an event of a finished object, or of what is wrong with it.
    pub fn told(&self, out: &mut BytesMut, kind: &str, body: Result<Bytes>) {
        match body {
            Ok(body) => self.line(out, kind, &body),
            Err(fault) => self.document(out, "ERROR", &fault.to_value()),
        }
    }

    /// Writes a bookmark; that which ends the initial events says so.
    pub fn bookmark(&self, out: &mut BytesMut, revision: &str, ends_initial: bool) {
        let mut meta = json!({"resourceVersion": revision, "creationTimestamp": null});
        if ends_initial {
            meta["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({
            "kind": self.resource.kind.kind,
            "apiVersion": self.resource.api_version,
            "metadata": meta,
        });
        let version = self.style.version;
        let shown = match self.accept.form {
            Form::Table => {
                let meta = json!({"resourceVersion": revision});
                let mut out = table::table(&self.resource.kind, version, meta, false);
                out["rows"] = json!([{"cells": [], "object": table::partial(object, version)}]);
                out
            }
            Form::Metadata => table::partial(object, version),
            _ => object,
        };
        self.document(out, "BOOKMARK", &shown);
    }

    /// Writes an event of any document.
    pub fn document(&self, out: &mut BytesMut, kind: &str, document: &Value) {
        match encode::value(document, self.accept) {
            Ok(body) => self.line(out, kind, &body),
            Err(fault) => tracing::error!(%fault, kind, "an event cannot be written"),
        }
    }

    /// A table with one row; the first has the columns.
    fn row(&mut self, object: Value) -> Value {
        let kind = &self.resource.kind;
        let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let first = !std::mem::replace(&mut self.has_columns, true);
        let mut out = table::table(kind, self.style.version, meta, first);
        let now = jiff::Timestamp::now();
        out["rows"] = vec![table::row(kind, object, self.style, now)].into();
        out
    }

    /// Writes an event of a finished object.
    fn line(&self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        match self.accept.encoding {
            Encoding::Json => raw(out, kind, object),
            Encoding::Protobuf => out.put_slice(&protobuf::watch_frame(kind, object)),
            Encoding::Cbor => out.put_slice(&cbor::watch_event(kind, object)),
            Encoding::Yaml => {
                out.put_slice(format!("---\ntype: {kind}\nobject:\n").as_bytes());
                for line in object.split_inclusive(|byte| *byte == b'\n') {
                    out.put_slice(b"  ");
                    out.put_slice(line);
                }
            }
        }
    }
}

fn raw(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
