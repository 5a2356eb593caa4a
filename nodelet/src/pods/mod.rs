//! The pods of this node, each with a worker of its own.
//!
//! The shell around [`crate::core`]: the [`manager`] watches the API and the runtime and hands
//! what concerns a pod to its [`worker`]; the worker feeds the machine, carries out its
//! [`actions`], and tells the API what came of it ([`report`]). [`notes`] writes events,
//! [`orphans`] clears away what no pod owns.

pub mod actions;
pub mod context;
pub mod images;
mod last_words;
pub mod manager;
pub mod notes;
pub mod observe;
pub mod orphans;
pub mod report;
mod resize;
mod same_status;
mod signals;
pub mod start;
pub mod table;
pub mod timing;
pub mod worker;

pub use context::Context;
pub use table::{Entry, Table};
