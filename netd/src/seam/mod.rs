//! The seam to the network agent for other processes of its node: the node agent where it runs
//! apart, and the CNI plugin.
//!
//! Requests are those of [`peapod_api::attach`], as JSON lines over a Unix socket that only root
//! may connect to: one request and one answer to a connection. Every request is idempotent, so
//! that a [`Client`] asks again when the agent went away in between.

mod client;
mod message;
mod server;

pub use client::{Client, Error};
pub use message::{Answer, Call, CheckRequest, CollectRequest, VERSION};
pub use server::Error as ServerError;
pub(crate) use server::Server;
