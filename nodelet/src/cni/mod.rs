//! The pods' network by somebody else's CNI plugins (<https://www.cni.dev/docs/spec/>), in the
//! place of the network agent's own links.
//!
//! A configuration's chain of plugins is run for each pod, each with the result of the one
//! before. What was asked for and what came of it is kept in a file for each pod, before and after:
//! so that what was attached is released as it was made, whatever has become of the
//! configuration, and however this process ended.

mod cache;
mod config;
mod exec;
mod network;

pub use network::{CniNetwork, Dirs};
