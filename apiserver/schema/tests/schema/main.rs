//! What the crate promises, on the built-in kinds.

mod documents;
mod golden;
mod ownership;
mod patches;
mod protobuf;
mod shapes;
mod values;
