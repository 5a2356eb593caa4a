//! Watches: from a revision on, every event that an interest matches, once and in order.
//!
//! ```text
//!   applier --publish--> Feed { World, History, Hub } --wakes only who matches--> Watch
//!                                  |                                                |
//!                                  +------ replay, when starting or behind ---------+
//! ```
//!
//! A watch has two modes. *Live*, events are pushed into its short queue. *Behind*, it reads them
//! from the history by itself, in its own time. It begins behind, at the revision that it was asked
//! to start from; it becomes live on reaching the end of the history, under the lock that events are
//! published under, so there is neither gap nor duplicate; and a queue that fills up puts it behind
//! again. So a slow reader costs no memory, and is ended only when the history has forgotten what it
//! had not read.

mod feed;
mod hub;
mod interest;
mod stream;

pub(crate) use feed::Feed;
pub use interest::Interest;
pub use stream::{Watch, WatchEnd};

use thiserror::Error;

use crate::history::Compacted;

/// Why a watch cannot start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WatchError {
    /// The revision to start from is too old.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// There are too many watches.
    #[error("{0} watches are open, which is the limit; close some, or try again later")]
    TooMany(usize),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
