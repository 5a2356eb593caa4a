//! The recent past: a ring of events, from which watches start and resume, and past states are read.
//!
//! The ring is bounded by age and by size. What falls out of it is compacted: its floor rises, and
//! whoever asks for something older is told so. It is kept twice, once in order of time, for
//! bounding it, and once per resource, so that a watch replays only events of its own resource.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::entry::{Event, EventKind};
use crate::key::Resource;
use crate::revision::Revision;

/// How much of the past is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Events older than this are forgotten when newer ones come.
    pub max_age: Duration,
    /// The most bytes of superseded and deleted values, with a flat charge for each event.
    pub max_bytes: usize,
    /// The most events.
    pub max_events: usize,
}

/// What was asked for is older than the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "revision {asked} was compacted: the oldest that can be read is {oldest}; list again and \
     watch from there"
)]
pub struct Compacted {
    /// The revision that was asked for.
    pub asked: Revision,
    /// The oldest revision that can be asked for.
    pub oldest: Revision,
}

/// Where a reader stands in the ring. Positions only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position(u64);

/// An event with its position.
type Numbered<M> = (Position, Arc<Event<M>>);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct History<M> {
    floor: Revision,
    /// The position of the first event of `events`.
    first: Position,
    events: VecDeque<Arc<Event<M>>>,
    by_resource: HashMap<Resource, VecDeque<Numbered<M>>>,
    bytes: usize,
}

/// What an event is charged beside its value: the entry, its key and metadata.
const EVENT_OVERHEAD_BYTES: usize = 512;

// === impl HistoryLimits ===

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 60),
            max_bytes: 32 << 20,
            max_events: 1 << 16,
        }
    }
}

// === impl History ===

impl<M> History<M> {
    /// An empty history that begins after `floor`.
    pub fn after(floor: Revision) -> Self {
        Self {
            floor,
            first: Position::default(),
            events: VecDeque::new(),
            by_resource: HashMap::new(),
            bytes: 0,
        }
    }

    /// The oldest revision whose state can be read, and after which a watch can start.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// The position after the newest event.
    pub fn end(&self) -> Position {
        Position(self.first.0 + self.events.len() as u64)
    }

    /// Appends an event, which must not be older than the newest, and returns its position.
    pub fn push(&mut self, event: Arc<Event<M>>) -> Position {
        let position = self.end();
        self.bytes += cost(&event);
        let resource = event.entry.key.resource();
        if !self.by_resource.contains_key(resource) {
            self.by_resource
                .insert(Resource::of(&event.entry.key), VecDeque::new());
        }
        if let Some(ring) = self.by_resource.get_mut(resource) {
            ring.push_back((position, event.clone()));
        }
        self.events.push_back(event);
        position
    }

    /// Forgets what exceeds `limits` at the time `now`. Returns the floor if it rose.
    pub fn trim(&mut self, limits: &HistoryLimits, now: SystemTime) -> Option<Revision> {
        let before = self.floor;
        while let Some(oldest) = self.events.front() {
            let age = now.duration_since(oldest.time).unwrap_or_default();
            let within = age <= limits.max_age
                && self.bytes <= limits.max_bytes
                && self.events.len() <= limits.max_events;
            if within {
                break;
            }
            self.compact(oldest.revision);
        }
        (self.floor > before).then_some(self.floor)
    }

    /// Forgets everything up to and including `floor`.
    pub fn compact(&mut self, floor: Revision) {
        self.floor = self.floor.max(floor);
        while self
            .events
            .front()
            .is_some_and(|event| event.revision <= floor)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(event) = self.events.pop_front() else {
            return;
        };
        self.first.0 += 1;
        self.bytes -= cost(&event);
        let resource = event.entry.key.resource();
        if let Some(ring) = self.by_resource.get_mut(resource) {
            ring.pop_front();
            if ring.is_empty() {
                self.by_resource.remove(resource);
            }
        }
    }

    /// Forgets everything, and that something came before `floor` too: who stood anywhere has missed
    /// something.
    pub fn forget_all(&mut self, floor: Revision) {
        let first = Position(self.end().0 + 1);
        *self = Self {
            first,
            ..Self::after(floor)
        };
    }

    /// The position of the first event after `revision`.
    ///
    /// # Errors
    /// [`Compacted`] when events after it have been forgotten.
    pub fn position_after(&self, revision: Revision) -> Result<Position, Compacted> {
        if revision < self.floor {
            return Err(Compacted {
                asked: revision,
                oldest: self.floor,
            });
        }
        let older = self
            .events
            .partition_point(|event| event.revision <= revision);
        Ok(Position(self.first.0 + older as u64))
    }

    /// The events of `resource` from `position` on, oldest first. `None` if some were forgotten.
    pub fn replay(
        &self,
        resource: &Resource,
        position: Position,
    ) -> Option<impl Iterator<Item = &Numbered<M>> + use<'_, M>> {
        if position < self.first {
            return None;
        }
        let ring = self.by_resource.get(resource);
        let older = ring.map_or(0, |ring| ring.partition_point(|(at, _)| *at < position));
        Some(ring.into_iter().flat_map(move |ring| ring.range(older..)))
    }

    /// The newest revision at or before `time`.
    ///
    /// # Errors
    /// [`Compacted`] when the history does not reach back that far.
    pub fn revision_at(&self, time: SystemTime) -> Result<Revision, Compacted> {
        let older = self.events.partition_point(|event| event.time <= time);
        match older
            .checked_sub(1)
            .and_then(|newest| self.events.get(newest))
        {
            Some(event) => Ok(event.revision),
            // With nothing ever forgotten the state before the first event is known: empty.
            None if self.floor == Revision::ZERO => Ok(Revision::ZERO),
            None => Err(Compacted {
                asked: Revision::ZERO,
                oldest: self.floor,
            }),
        }
    }
}

/// What keeping `event` costs: the values that only the history still holds.
fn cost<M>(event: &Event<M>) -> usize {
    let previous = event
        .previous
        .as_ref()
        .map_or(0, |previous| previous.value.len());
    let last = if event.kind == EventKind::Delete {
        event.entry.value.len()
    } else {
        0
    };
    previous + last + EVENT_OVERHEAD_BYTES
}
