//! Which node gets a pod.
//!
//! This crate owns the decision, the order of the queue, and the binding. [`core`] decides, from a
//! snapshot that it is told about one change at a time; [`tasks`] watches the API, feeds the core
//! and carries out what it decides. It behaves as kube-scheduler with its default profile: the same
//! filters, scores and weights, the same events.
//!
//! It must not know how pods run, how addresses are given, or how the API stores what it serves.

pub mod config;
pub mod core;
pub mod error;
pub mod metrics;
pub mod tasks;
pub mod view;

mod reports;
mod requests;
mod watches;

pub use config::Config;
pub use error::Error;
pub use tasks::run;
