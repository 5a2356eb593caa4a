//! BGP-4 (RFC 4271) without IO.
//!
//! The crate owns the protocol: what messages look like ([`types`] as values, [`wire`] as bytes),
//! and what a speaker does with them. Bytes and the time go in; bytes, timers and route changes
//! come out. A [`Speaker`] is put together of the session's state machine ([`fsm`]), the tables
//! ([`rib`]) and [`policy`], as its [`config`] says. Networks of them run in virtual time ([`sim`]).
//!
//! It must not know sockets, clocks, kernels or Kubernetes: the shell around it owns those.

mod chance;
pub mod config;
pub mod fsm;
pub mod policy;
pub mod rib;
pub mod sim;
pub mod speaker;
mod time;
pub mod types;
pub mod wire;

pub use chance::Chance;
pub use config::Config;
pub use speaker::Speaker;
pub use time::Time;
