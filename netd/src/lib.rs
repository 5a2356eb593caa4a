//! The network of one node: addresses, links, routes, service maps, DNS.
//!
//! This crate owns the Kubernetes network model on a node: every pod has an address of its
//! own, reached without translation; service addresses lead to endpoints by maps in the
//! kernel; the cluster's names resolve at the cluster's DNS address, on the node itself. What
//! decides is pure and lives in [`core`]; [`links`] and [`nat`] tell the kernel; `tasks` wires
//! them to the API.
//!
//! It must not know how pods run: the node agent meets it over
//! [`peapod_api::attach::PodNetwork`] only (over a socket, where it runs apart: [`seam`]), and everything else over the API.

mod attacher;
mod cleanup;
pub mod cni;
mod config;
pub mod core;
pub mod dns;
mod fabric;
pub mod host_firewall;
pub mod links;
mod metrics;
pub mod nat;
mod netd;
pub mod node_address;
pub mod pods;
pub mod probe;
pub mod seam;
mod surroundings;
mod tasks;

pub use cleanup::{Error as CleanupError, cleanup};
pub use config::{Config, DnsConfig};
pub use netd::{Error, Netd};
