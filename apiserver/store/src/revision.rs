//! Revisions: the store's logical clock.

use std::fmt;

/// A point in the store's history. Each transaction that changes something gets the next one, so
/// that revisions are strictly increasing, survive restarts and are never given twice.
///
/// Kubernetes' `resourceVersion` is a revision in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first change: the revision of a store that has never been written.
    pub const ZERO: Self = Self(0);

    /// The revision that follows this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
