//! The thin async shell around the cores: watches, queues, workers, writes.
//!
//! ```text
//!   API watch ──▶ Informer<K> ──handlers──▶ Queue ──▶ Loop ──▶ reconcile(key) ──▶ API writes
//!                    │ cache                 ▲ retry, after        │
//!                    └──────── reads ────────┴─────────────────────┘
//! ```
//!
//! One [`informer::Informer`] per kind is shared by every loop. Nothing here knows any kind's
//! rules.

pub mod backoff;
pub mod claims;
pub mod context;
pub mod discovery;
pub mod error;
pub mod events;
pub mod expectations;
pub mod informer;
pub mod metrics;
pub mod pod_control;
pub mod queue;
pub mod revisions;
pub mod worker;
pub mod write;

pub use context::Context;
pub use error::{Error, Result};
pub use informer::{Change, Informer};
pub use queue::Queue;
pub use worker::{Controller, Loop, Outcome, Tasks};
