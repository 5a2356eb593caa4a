//! The shapes of the API's types, and what follows from a shape alone.
//!
//! A [`Schema`] is a place in a [`graph::Graph`] of types: objects with fields, lists, maps and
//! scalars, with what the API says about each (required, default, list type, merge key). The
//! built-in kinds' graph is read from a table ([`builtin`]); a custom resource's from its OpenAPI
//! schema ([`structural`]). From the shape follow:
//!
//! - [`decode`]: bytes to a JSON value, within bounds, duplicate keys noted;
//! - [`protobuf`], [`cbor`]: the same from Kubernetes' other forms, and JSON bytes to them;
//! - [`check`]: wrong types, unknown fields, nulls; values brought to their canonical text;
//! - [`default`]: literal defaults and the empty values of required fields;
//! - [`custom`]: pruning, defaults and validation of custom resources;
//! - [`patch`]: JSON patch, merge patch, strategic merge patch;
//! - [`apply`]: server-side apply and the ownership of fields;
//! - [`openapi`]: the documents that describe it all to clients.
//!
//! Everything here is a pure function of its arguments. The crate knows no kind's rules (those
//! are the registry's), no HTTP, no store, no clock and no Kubernetes types in Rust.

pub mod apply;
pub mod builtin;
pub mod cbor;
pub mod check;
pub mod custom;
pub mod decode;
pub mod default;
pub mod graph;
pub mod numbers;
pub mod openapi;
pub mod patch;
mod path;
pub mod protobuf;
pub mod resources;
mod scalar;
pub mod structural;
mod wire;

pub use check::FieldValidation;
pub use graph::Schema;
