//! Kubernetes' protobuf form of built-in kinds, from and to JSON: what client-go's typed clients
//! speak. Field numbers are facts of the published API, in `protobuf.tsv`; the shapes are the
//! schema's.
//!
//! A body is `k8s\0` and a `runtime.Unknown`: `{1: {1: apiVersion, 2: kind}, 2: the message}`. In
//! the message itself kind and version do not stand, so items of lists have none.

mod decode;
mod encode;

use thiserror::Error;

use crate::graph::{Node, Schema, Type};
use crate::numbers;
use crate::wire::WireError;

pub use decode::decode;
pub use encode::{
    Shown, append_item, encode, enveloped, item_len, list_head, message, watch_frame,
};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const DEPTH_MAX: usize = 64;

/// A body is no object in protobuf, or an object cannot be written as one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    /// It does not begin as one.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Magic,
    /// A message is cut short or malformed.
    #[error("proto: {0}")]
    Wire(#[from] WireError),
    /// A message nests too deep.
    #[error("proto: messages nest more than {DEPTH_MAX} deep")]
    Depth,
    /// A value embeds JSON that is none.
    #[error("proto: embedded JSON: {0}")]
    Json(String),
    /// The JSON to be written is none, or not of the schema's shape.
    #[error("the object cannot be written as protobuf: {0}")]
    Shape(String),
}

/// Whether objects of a schema have a protobuf form. Custom resources have none, nor have the
/// kinds of which upstream knows nothing.
pub fn speaks(schema: &Schema) -> bool {
    match schema.root().ty() {
        Type::Object(object) => schema.custom().is_none() && numbers::of(&object.name).is_some(),
        _ => false,
    }
}

/// The type of the schemas that custom resources have.
fn json_schema(node: Node<'_>) -> Node<'_> {
    let found = node.graph.find("apiextensions.v1.JSONSchemaProps");
    found.map_or(node, |id| node.to(id))
}
