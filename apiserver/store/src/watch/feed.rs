//! The feed: the present world, the recent past, and who is told of what comes.
//!
//! Everything that must change together changes under its one lock: the world that readers see, the
//! history, and the queues of the watches. Readers of the world take no lock.

use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::WatchError;
use super::hub::{Hub, Mailbox, Mode, Watcher};
use super::interest::Interest;
use crate::engine::{Change, Loaded};
use crate::entry::{Describe, Event, Meta};
use crate::history::{Compacted, History, Position};
use crate::key::Resource;
use crate::revision::Revision;
use crate::store::Limits;
use crate::world::{Snapshot, World};

/// How many events a watch that is behind takes out of the history under one hold of the lock.
const REPLAY_CHUNK: usize = 512;

/// See the module's head.
pub(crate) struct Feed<M: Meta> {
    describe: Arc<dyn Describe<M>>,
    limits: Limits,
    world: ArcSwap<World<M>>,
    state: Mutex<State<M>>,
}

struct State<M> {
    history: History<M>,
    hub: Hub<M>,
    next_watcher: u64,
    closed: bool,
}

// === impl Feed ===

impl<M: Meta> Feed<M> {
    pub fn new(
        world: World<M>,
        history: History<M>,
        limits: Limits,
        describe: Arc<dyn Describe<M>>,
    ) -> Self {
        let state = State {
            history,
            hub: Hub::default(),
            next_watcher: 0,
            closed: false,
        };
        Self {
            describe,
            limits,
            world: ArcSwap::from_pointee(world),
            state: Mutex::new(state),
        }
    }

    /// The present.
    pub fn world(&self) -> Arc<World<M>> {
        self.world.load_full()
    }

    /// A snapshot of `resource` as it is now.
    pub fn snapshot(&self, resource: &Resource) -> Snapshot<M> {
        self.world.load().snapshot(resource)
    }

    /// Applies changes, in order, and tells whoever wants to know. Returns the history's floor if
    /// it rose. Only ever called from one task.
    pub fn publish<'c>(
        &self,
        changes: impl Iterator<Item = &'c Change>,
        now: SystemTime,
    ) -> Option<Revision> {
        let mut world = World::clone(&self.world.load());
        let describe = self.describe.as_ref();
        let events: Vec<_> = changes
            .flat_map(|change| world.apply(change, describe))
            .collect();
        let mut wake = Vec::new();
        let floor = {
            let mut state = self.state.lock();
            self.world.store(Arc::new(world));
            state.publish(events, describe, self.limits.watch_queue, &mut wake);
            state.history.trim(&self.limits.history, now)
        };
        wake.into_iter().for_each(Waker::wake);
        floor
    }

    /// Puts everything as it is now in the place of what was. Nobody can know what happened in
    /// between: every watch of what comes after an older revision ends, and those that ask for one
    /// are refused. Only ever called from the task that publishes.
    pub fn renew(&self, loaded: &Loaded) {
        let mut world = World::of(&loaded.base, self.describe.as_ref());
        world.revision = loaded.revision;
        let mut wake = Vec::new();
        {
            let mut state = self.state.lock();
            let end = state.history.end();
            state.history.forget_all(loaded.revision);
            state.hub.fall_behind(end, &mut wake);
            self.world.store(Arc::new(world));
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// Forgets the past up to `floor`, or up to the present if that is older. Returns what it is.
    pub fn compact(&self, floor: Revision) -> Revision {
        let mut state = self.state.lock();
        let floor = floor.min(self.world.load().revision);
        state.history.compact(floor);
        state.history.floor()
    }

    /// The oldest revision that can be read.
    pub fn floor(&self) -> Revision {
        self.state.lock().history.floor()
    }

    /// The newest revision at or before `time`.
    pub fn revision_at(&self, time: SystemTime) -> Result<Revision, Compacted> {
        self.state.lock().history.revision_at(time)
    }

    /// `resource` as it was at `revision`, which must not be in the future.
    pub fn at(&self, resource: &Resource, revision: Revision) -> Result<Snapshot<M>, Compacted> {
        let (mut snapshot, events) = {
            let state = self.state.lock();
            let position = state.history.position_after(revision)?;
            let events = state
                .history
                .replay(resource, position)
                .into_iter()
                .flatten();
            let events: Vec<_> = events.map(|(_, event)| event.clone()).collect();
            (self.snapshot(resource), events)
        };
        let revision = revision.min(snapshot.revision());
        snapshot.undo(revision, &events, self.describe.as_ref());
        Ok(snapshot)
    }

    /// Registers a watch of what comes after `after`.
    pub fn watch(
        &self,
        interest: Interest,
        after: Revision,
    ) -> Result<Arc<Watcher<M>>, WatchError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(WatchError::Closed);
        }
        if state.hub.len() >= self.limits.watches {
            return Err(WatchError::TooMany(state.hub.len()));
        }
        let mode = Mode::Behind(state.history.position_after(after)?);
        let mailbox = Mutex::new(Mailbox {
            mode,
            queue: Vec::new(),
            waker: None,
        });
        let id = state.next_watcher;
        state.next_watcher += 1;
        let watcher = Arc::new(Watcher {
            id,
            interest,
            after,
            mailbox,
        });
        state.hub.add(watcher.clone());
        Ok(watcher)
    }

    /// What `watcher` missed from `position` on, or a part of it. Having missed nothing it is live.
    pub fn replay(
        &self,
        watcher: &Watcher<M>,
        position: Position,
    ) -> Result<Vec<Arc<Event<M>>>, Compacted> {
        let state = self.state.lock();
        let oldest = state.history.floor();
        // Whoever asked for the future, and it is the past by now, has missed nothing before it.
        let asked = state.history.position_after(watcher.after);
        let position = asked.map_or(position, |asked| asked.max(position));
        let missed = state.history.replay(&watcher.interest.resource, position);
        let missed = missed.ok_or(Compacted {
            asked: watcher.after,
            oldest,
        })?;
        let mut events = Vec::new();
        let mut mode = Mode::Live;
        for (scanned, (at, event)) in missed.enumerate() {
            if scanned == REPLAY_CHUNK {
                mode = Mode::Behind(*at);
                break;
            }
            let new = event.revision > watcher.after;
            if new && watcher.interest.matches(event, self.describe.as_ref()) {
                events.push(event.clone());
            }
        }
        let mut mailbox = watcher.mailbox.lock();
        if mailbox.mode != Mode::Closed {
            mailbox.mode = mode;
        }
        Ok(events)
    }

    /// The present revision if `watcher` has nothing left to read.
    pub fn progress(&self, watcher: &Watcher<M>) -> Option<Revision> {
        let _state = self.state.lock();
        let mailbox = watcher.mailbox.lock();
        let read = mailbox.mode == Mode::Live && mailbox.queue.is_empty();
        read.then(|| self.world.load().revision)
    }

    pub fn unwatch(&self, watcher: &Watcher<M>) {
        self.state.lock().hub.remove(watcher);
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.state.lock().hub.len()
    }

    /// Ends every watch, and lets none begin.
    pub fn close(&self) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        state.closed = true;
        state.hub.close(&mut wake);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}

// === impl State ===

impl<M: Meta> State<M> {
    fn publish(
        &mut self,
        events: Vec<Arc<Event<M>>>,
        describe: &dyn Describe<M>,
        capacity: usize,
        wake: &mut Vec<Waker>,
    ) {
        for event in events {
            let position = self.history.push(event.clone());
            self.hub
                .dispatch(position, &event, describe, capacity, wake);
        }
    }
}

impl<M: Meta> std::fmt::Debug for Feed<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
