//! The Container Storage Interface (CSI), version 1: what is said to a storage driver, and how it
//! is reached.
//!
//! - [`v1`] and [`registration`] are the messages, clients and servers, made from `proto/`;
//! - [`rpc`] names each call, its client and its deadline;
//! - [`Driver`] is a driver as others ask it: `driver.call(request)`;
//! - [`connect`] reaches one by its socket on this node;
//! - [`tunnel`] reaches one on another node, through the API server.
//!
//! The crate knows no kind of Kubernetes, and decides nothing.

pub mod connect;
mod driver;
mod error;
pub mod rpc;
pub mod tunnel;

pub use driver::Driver;
pub use error::Error;
pub use rpc::Rpc;

/// The messages and services of CSI: <https://github.com/container-storage-interface/spec>.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// How a plugin of a node makes itself known (`pluginregistration`, version 1).
#[allow(missing_docs, clippy::all)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
