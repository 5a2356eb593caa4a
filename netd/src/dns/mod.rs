//! The cluster's DNS, served on the node itself.
//!
//! Names of the cluster are answered from [`crate::core::zone`], all others by the node's own
//! upstream servers, through a [`cache`]. [`server`] speaks UDP and TCP; [`handler`] makes a
//! reply of a request; [`forward`] asks upstream; [`upstreams`] tells whom.
//!
//! Every limit is here: requests that wait for an upstream, connections, message sizes.

pub mod cache;
mod forward;
mod handler;
mod message;
mod server;
pub mod upstreams;

pub use forward::Forwarder;
pub use handler::Handler;
pub use server::{Server, bind};

use std::net::SocketAddr;

/// The port of DNS.
pub const PORT: u16 = 53;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve DNS at {address}: {source}{}",
    remedy(.source)
)]
pub struct Error {
    /// Where.
    pub address: SocketAddr,
    /// The system's reason.
    pub source: std::io::Error,
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another DNS server listens on every address of this machine: let it listen on its own only"
        }
        _ => "",
    }
}
