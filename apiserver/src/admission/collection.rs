//! A small collection of the API that every write asks about: decoded when it changes, and shared
//! until then.

use std::sync::Arc;

use parking_lot::Mutex;
use peapod_store::{Resource as Range, Revision, Scope};
use serde_json::Value;

use crate::api::Api;

/// What is made of the objects of a collection, as they were when it was last read.
pub struct Collection<T> {
    range: Range,
    make: fn(Vec<Value>) -> T,
    known: Mutex<Option<(State, Arc<T>)>>,
}

/// Any change makes another: a revision is never given twice, and what is deleted is not counted.
type State = (usize, Revision);

// === impl Collection ===

impl<T> Collection<T> {
    /// The collection of a group and plural; `make` makes of its objects, by name, what is wanted.
    pub fn new(group: &str, plural: &str, make: fn(Vec<Value>) -> T) -> Self {
        Self {
            range: Range::new(group, plural)
                .expect("a declared group and plural are not empty and have no slash"),
            make,
            known: Mutex::default(),
        }
    }

    /// What there is now; `None` when there is nothing.
    pub fn read(&self, api: &Api) -> Option<Arc<T>> {
        let snapshot = api.store.snapshot(&self.range);
        if snapshot.is_empty() {
            return None;
        }
        let entries = || snapshot.range(Scope::All, None);
        let newest = entries()
            .map(|entry| entry.modified)
            .max()
            .unwrap_or_default();
        let state = (snapshot.len(), newest);
        if let Some((known, made)) = &*self.known.lock()
            && *known == state
        {
            return Some(made.clone());
        }
        let decoded = entries().filter_map(|entry| serde_json::from_slice(&entry.value).ok());
        let made = Arc::new((self.make)(decoded.collect()));
        *self.known.lock() = Some((state, made.clone()));
        Some(made)
    }
}
