//! BGP-4 (RFC 4271) without IO.
//!
//! The crate owns the protocol: what messages look like ([`types`] as values, [`wire`] as bytes),
//! and what a speaker does with them. Bytes and the time go in; bytes, timers and route changes
//! come out.
//!
//! It must not know sockets, clocks, kernels or Kubernetes: the shell around it owns those.

pub mod types;
pub mod wire;
