//! The revisioned store: a map from keys to encoded values in which every change has a revision,
//! that can be read as it is or was, watched without a gap, and changed by transactions that are
//! acknowledged once they are durable.
//!
//! It owns keys, revisions, transactions, snapshots, history and watches, and the engines that make
//! them durable. It must not know what a value means: whoever uses it says by [`Describe`] what it
//! should index.
//!
//! - [`Store`]: the front. [`Key`], [`Revision`], [`Txn`], [`Entry`], [`Event`]: its words.
//! - [`Snapshot`]: one resource at one revision. [`Watch`]: what happens to an [`Interest`].
//! - [`engine`]: the seam to what is durable. [`SledEngine`]: the embedded one. [`MemoryEngine`]: one
//!   that keeps nothing, for tests.
//! - [`export`]: everything at one revision in a file: backup, and what a damaged store is restored from.

mod codec;
pub mod engine;
mod entry;
mod etcd_engine;
pub mod export;
mod exporter;
mod frame;
mod history;
mod key;
mod ledger;
mod memory;
mod revision;
mod sled_engine;
mod store;
mod txn;
mod watch;
mod world;

pub use entry::{Describe, Entry, Event, EventKind, IndexId, Meta};
pub use etcd_engine::{EtcdConfig, EtcdEngine, EtcdError, EtcdTls, RestoreEtcdError};
pub use history::{Compacted, HistoryLimits};
pub use key::{BadKey, Key, MAX_KEY_BYTES, Resource};
pub use memory::MemoryEngine;
pub use revision::Revision;
pub use sled_engine::{OpenError, Recovery, RestoreError, SledConfig, SledEngine, restore};
pub use store::{AtError, CommitError, Committed, Image, Limits, Store};
pub use txn::{Action, BadTxn, Compare, Draft, MAX_OPS, MAX_VALUE_BYTES, Op, Txn};
pub use watch::{Interest, Watch, WatchEnd, WatchError};
pub use world::{Scope, Snapshot};
