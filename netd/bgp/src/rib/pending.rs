//! What one peer has yet to be sent. However often a prefix changes before the peer takes it, it
//! is sent once, as it is then; a slow peer costs at most an entry for each prefix.

use std::collections::{HashMap, VecDeque};

use super::group::Target;
use super::index::Slot;

/// What one peer has yet to be sent of one family.
#[derive(Debug, Default)]
pub struct Pending {
    queue: VecDeque<Slot>,
    /// What the peer was last sent of the prefixes in the queue.
    before: HashMap<Slot, Target>,
    walk: Option<Walk>,
}

/// A walk over the whole table: all routes are sent, whatever was sent before.
#[derive(Clone, Copy, Debug)]
struct Walk {
    next: Slot,
    end: Slot,
}

/// The next thing to send.
#[derive(Debug)]
pub enum Next {
    /// A prefix that changed, and what the peer was last sent of it.
    Changed(Slot, Target),
    /// A prefix to be sent as if nothing had been.
    Walked(Slot),
    /// The walk is over: all routes have been sent.
    WalkDone,
}

// === impl Pending ===

impl Pending {
    /// A prefix changed, of which the peer was told `before`. Whether it was not in the queue.
    pub fn push(&mut self, slot: Slot, before: Target) -> bool {
        if self.before.contains_key(&slot) {
            return false;
        }
        self.before.insert(slot, before);
        self.queue.push_back(slot);
        true
    }

    /// Sends everything up to slot `end`, from the start.
    pub fn walk(&mut self, end: Slot) {
        self.walk = Some(Walk { next: 0, end });
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.walk.is_none()
    }

    /// The next thing to send.
    pub fn pop(&mut self) -> Option<Next> {
        if let Some(slot) = self.queue.pop_front() {
            let before = self.before.remove(&slot).unwrap_or_default();
            if self.queue.is_empty() {
                self.queue = VecDeque::new();
                self.before = HashMap::new();
            }
            return Some(Next::Changed(slot, before));
        }
        let walk = self.walk.as_mut()?;
        if walk.next >= walk.end {
            self.walk = None;
            return Some(Next::WalkDone);
        }
        walk.next += 1;
        Some(Next::Walked(walk.next - 1))
    }

    /// Forgets everything; the slots that were in the queue.
    pub fn clear(&mut self) -> Vec<Slot> {
        let slots = self.queue.drain(..).collect();
        *self = Pending::default();
        slots
    }
}
