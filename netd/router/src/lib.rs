//! A BGP router: [`peapod_bgp`]'s speaker with the world around it.
//!
//! The crate owns what the speaker must not know: sockets ([`transport`]), the clock, the
//! kernel's links and routes ([`kernel`]), BFD, router advertisements, and the socket by which
//! people look in ([`control`]).
//! [`run`] is a router from a [`RouterConfig`] file, with no cluster.
//!
//! It must not know Kubernetes, and decides nothing about routes: the speaker does.

mod bfd;
mod config;
pub mod control;
mod discovery;
mod error;
mod gtsm;
pub mod kernel;
mod router;
mod sys;
mod transport;

pub use config::RouterConfig;
pub use error::Error;
pub use router::{RouterView, Seat, run, run_seated};
