//! The line of the newest event of each look: events that come singly are told to all watchers at
//! about the same time, so that one place for each is enough, and no watch waits for another.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::registry::Resource;
use crate::rest::negotiate::Look;
use crate::storage::Event;

/// A line of a watch: an event as a kind and a look show it.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// What happened.
    pub event: &'a Arc<Event>,
    /// What it is to the selection: `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: &'static str,
    /// The kind that shows it: several may show one object.
    pub resource: &'a Arc<Resource>,
    /// Form and encoding.
    pub look: Look,
}

/// The newest lines, one for each look.
#[derive(Default)]
pub struct Newest([ArcSwapOption<Made>; Look::COUNT]);

/// A line that was made. It holds what it is known by, so that nothing else can be taken for it.
struct Made {
    event: Arc<Event>,
    kind: &'static str,
    resource: Arc<Resource>,
    look: Look,
    line: Bytes,
}

// === impl Newest ===

impl Newest {
    /// The bytes of a line, if it is the newest of its look.
    pub fn get(&self, line: Line<'_>) -> Option<Bytes> {
        let made = self.0[line.look.index()].load();
        let made = made.as_ref()?;
        let is_same = Arc::ptr_eq(&made.event, line.event)
            && Arc::ptr_eq(&made.resource, line.resource)
            && made.kind == line.kind
            && made.look == line.look;
        is_same.then(|| made.line.clone())
    }

    /// Keeps the bytes of a line, in the place of those that were the newest.
    pub fn keep(&self, line: Line<'_>, bytes: Bytes) {
        let made = Made {
            event: line.event.clone(),
            kind: line.kind,
            resource: line.resource.clone(),
            look: line.look,
            line: bytes,
        };
        self.0[line.look.index()].store(Some(Arc::new(made)));
    }
}
