//! Who must be told of an event: the watches, found by what they want to see.
//!
//! Each watch is registered once, under the most selective part of its interest. An event looks up
//! the few places where its watchers can be (its key, its index values, its namespace, its
//! resource), so that its cost does not depend on how many others watch something else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use super::interest::Interest;
use crate::entry::{Describe, Event, IndexId, Meta};
use crate::history::Position;
use crate::key::Resource;
use crate::revision::Revision;

/// A registered watch: what it wants, and where its events go.
#[derive(Debug)]
pub(crate) struct Watcher<M> {
    pub id: u64,
    pub interest: Interest,
    /// It has asked for what comes after this revision.
    pub after: Revision,
    pub mailbox: Mutex<Mailbox<M>>,
}

/// What lies between the feed and the reader of one watch.
#[derive(Debug)]
pub(crate) struct Mailbox<M> {
    pub mode: Mode,
    /// Events not yet taken; only filled while live.
    pub queue: Vec<(Position, Arc<Event<M>>)>,
    /// The reader, when it waits.
    pub waker: Option<Waker>,
}

/// How a watch gets its events. See the head of [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// From its queue.
    Live,
    /// From the history, beginning at this position.
    Behind(Position),
    /// No more: the store is closed.
    Closed,
}

/// All watches of the store.
#[derive(Debug)]
pub(crate) struct Hub<M> {
    resources: HashMap<Resource, Registrations<M>>,
    len: usize,
}

type Watchers<M> = Vec<Arc<Watcher<M>>>;

/// The watches of one resource, each in one of the maps.
#[derive(Debug)]
struct Registrations<M> {
    all: Watchers<M>,
    by_namespace: HashMap<Box<str>, Watchers<M>>,
    by_key: HashMap<Box<str>, Watchers<M>>,
    by_index: HashMap<IndexId, HashMap<Box<str>, Watchers<M>>>,
}

// === impl Mailbox ===

impl<M> Mailbox<M> {
    /// Leaves an event for the reader; returns who is to be woken. A queue of `capacity` events is
    /// given up in favour of the history, which has them too.
    fn deliver(
        &mut self,
        position: Position,
        event: &Arc<Event<M>>,
        capacity: usize,
    ) -> Option<Waker> {
        if self.mode != Mode::Live {
            return None;
        }
        if self.queue.len() < capacity {
            self.queue.push((position, event.clone()));
        } else {
            let oldest = self.queue.first().map_or(position, |(oldest, _)| *oldest);
            self.mode = Mode::Behind(oldest);
            self.queue = Vec::new();
        }
        self.waker.take()
    }
}

// === impl Hub ===

impl<M> Default for Hub<M> {
    fn default() -> Self {
        Self {
            resources: HashMap::new(),
            len: 0,
        }
    }
}

impl<M: Meta> Hub<M> {
    /// How many watches there are.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn add(&mut self, watcher: Arc<Watcher<M>>) {
        let resource = watcher.interest.resource.clone();
        self.resources
            .entry(resource)
            .or_default()
            .place(&watcher.interest)
            .push(watcher);
        self.len += 1;
    }

    pub fn remove(&mut self, watcher: &Watcher<M>) {
        let resource = &watcher.interest.resource;
        let Some(registrations) = self.resources.get_mut(resource) else {
            return;
        };
        let place = registrations.place(&watcher.interest);
        let before = place.len();
        place.retain(|other| other.id != watcher.id);
        self.len -= before - place.len();
        if place.is_empty() {
            registrations.tidy(&watcher.interest);
        }
        if registrations.is_empty() {
            self.resources.remove(resource);
        }
    }

    /// Hands `event` to every watch that wants it; the readers to be woken are added to `wake`.
    pub fn dispatch(
        &self,
        position: Position,
        event: &Arc<Event<M>>,
        describe: &dyn Describe<M>,
        capacity: usize,
        wake: &mut Vec<Waker>,
    ) {
        let Some(registrations) = self.resources.get(event.entry.key.resource()) else {
            return;
        };
        registrations.candidates(event, describe, |watcher| {
            let new = event.revision > watcher.after;
            if new && watcher.interest.matches(event, describe) {
                wake.extend(watcher.mailbox.lock().deliver(position, event, capacity));
            }
        });
    }

    /// Has every watch go back to the history, at `position` at the latest.
    pub fn fall_behind(&self, position: Position, wake: &mut Vec<Waker>) {
        for registrations in self.resources.values() {
            registrations.each(|watcher| {
                let mut mailbox = watcher.mailbox.lock();
                if mailbox.mode == Mode::Live {
                    // What it has in its queue is read before.
                    mailbox.mode = Mode::Behind(position);
                    wake.extend(mailbox.waker.take());
                }
            });
        }
    }

    /// Ends every watch.
    pub fn close(&mut self, wake: &mut Vec<Waker>) {
        for registrations in self.resources.values() {
            registrations.each(|watcher| {
                let mut mailbox = watcher.mailbox.lock();
                mailbox.mode = Mode::Closed;
                wake.extend(mailbox.waker.take());
            });
        }
        *self = Self::default();
    }
}

// === impl Registrations ===

impl<M> Default for Registrations<M> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            by_namespace: HashMap::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
        }
    }
}

impl<M: Meta> Registrations<M> {
    /// Where a watch with this interest is registered.
    fn place(&mut self, interest: &Interest) -> &mut Watchers<M> {
        match (&interest.namespace, &interest.name, &interest.index) {
            (Some(namespace), Some(name), _) => {
                self.by_key.entry(local_key(namespace, name)).or_default()
            }
            (_, _, Some((id, value))) => self
                .by_index
                .entry(*id)
                .or_default()
                .entry(value.clone())
                .or_default(),
            (Some(namespace), None, None) => {
                self.by_namespace.entry(namespace.clone()).or_default()
            }
            (None, _, None) => &mut self.all,
        }
    }

    /// Forgets the place of `interest`, which has become empty.
    fn tidy(&mut self, interest: &Interest) {
        match (&interest.namespace, &interest.name, &interest.index) {
            (Some(namespace), Some(name), _) => {
                self.by_key.remove(&local_key(namespace, name));
            }
            (_, _, Some((id, value))) => {
                if let Some(values) = self.by_index.get_mut(id) {
                    values.remove(value);
                }
                self.by_index.retain(|_, values| !values.is_empty());
            }
            (Some(namespace), None, None) => {
                self.by_namespace.remove(namespace);
            }
            (None, _, None) => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
            && self.by_namespace.is_empty()
            && self.by_key.is_empty()
            && self.by_index.is_empty()
    }

    /// Every watch whose place the event touches, once.
    fn candidates(
        &self,
        event: &Event<M>,
        describe: &dyn Describe<M>,
        mut tell: impl FnMut(&Watcher<M>),
    ) {
        let key = &event.entry.key;
        let named = (!self.by_key.is_empty())
            .then(|| self.by_key.get(&*local_key(key.namespace(), key.name())))
            .flatten();
        let places = [
            Some(&self.all),
            self.by_namespace.get(key.namespace()),
            named,
        ];
        places
            .into_iter()
            .flatten()
            .flatten()
            .for_each(|watcher| tell(watcher));
        if !self.by_index.is_empty() {
            for (id, value) in index_values(event, describe) {
                let watchers = self.by_index.get(&id).and_then(|values| values.get(value));
                watchers
                    .into_iter()
                    .flatten()
                    .for_each(|watcher| tell(watcher));
            }
        }
    }

    fn each(&self, mut tell: impl FnMut(&Watcher<M>)) {
        let named = self.by_namespace.values().chain(self.by_key.values());
        let indexed = self.by_index.values().flat_map(HashMap::values);
        let places = std::iter::once(&self.all).chain(named).chain(indexed);
        places.flatten().for_each(|watcher| tell(watcher));
    }
}

/// A key below its resource.
fn local_key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

/// The index values of an entry before and after an event, each once.
fn index_values<'e, M: Meta>(
    event: &'e Event<M>,
    describe: &dyn Describe<M>,
) -> HashSet<(IndexId, &'e str)> {
    let before = event
        .previous
        .iter()
        .flat_map(|previous| describe.indexes(&previous.meta));
    before.chain(describe.indexes(&event.entry.meta)).collect()
}
