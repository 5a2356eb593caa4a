//! Histories of concurrent clients, and whether they are linearizable: whether each operation can have
//! happened at one moment between its begin and its end, so that all outcomes follow.
//!
//! Keys are independent of each other, so each is checked by itself ([`check`]), by Wing and Gong's search with
//! Lowe's memory of configurations that led nowhere ("Testing for linearizability", 2017). An operation
//! whose outcome nobody knows may have happened at any moment after its begin, or not at all.
//!
//! Values are written once each, so that a value says which write it is of; what is read with it, the
//! resourceVersion, must then be that write's, and grow with time over all keys ([`versions`]).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Which write wrote what stands there.
pub type Value = u64;

/// What a client does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Creates it with a value.
    Create(Value),
    /// Replaces the value `from` by `to`, if it is there still.
    Swap {
        /// What the client has read.
        from: Value,
        /// What it writes.
        to: Value,
    },
    /// Reads it.
    Get,
    /// Deletes it if the value is there still.
    Delete(Value),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The value was read.
    Read(Value),
    /// There was nothing at the key.
    Absent,
    /// There was something else at the key.
    Other,
    /// Nobody knows.
    Unknown,
    /// It was never sent: it is no part of a history.
    Unsent,
}

/// One operation. Times are of one clock, that only tells what was before what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was about.
    pub key: String,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub outcome: Outcome,
    /// The resourceVersion in the answer.
    pub version: Option<u64>,
    /// When it began.
    pub begin: u64,
    /// When it ended; for an unknown outcome, when the client gave up.
    pub end: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            call,
            outcome,
            begin,
            end,
            ..
        } = self;
        write!(f, "{begin}..{end} {key}: {call:?} -> {outcome:?}")
    }
}

/// Takes note of operations while they happen.
#[derive(Debug, Default)]
pub struct Recorder {
    state: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    clock: u64,
    operations: Vec<Operation>,
}

// === impl Recorder ===

impl Recorder {
    /// Carries out an operation, which says its outcome and the resourceVersion that it was answered
    /// with. `None` when it was a read of which nothing is known.
    pub async fn record<T>(
        &self,
        key: &str,
        call: Call,
        work: impl Future<Output = (T, Outcome, Option<u64>)>,
    ) -> T {
        let begin = self.tick();
        let (result, outcome, version) = work.await;
        let end = self.tick();
        // Nor does a read without an answer say anything.
        if outcome != Outcome::Unsent && (call, outcome) != (Call::Get, Outcome::Unknown) {
            let operation = Operation {
                key: key.to_owned(),
                call,
                outcome,
                version,
                begin,
                end,
            };
            self.lock().operations.push(operation);
        }
        result
    }

    /// Everything so far.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.lock().operations)
    }

    fn tick(&self) -> u64 {
        let mut state = self.lock();
        state.clock += 1;
        state.clock
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a history, key by key; an error shows the operations of a key that has no explanation.
pub fn check(history: &[Operation]) -> Result<(), String> {
    versions(history)?;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.begin);
        if let Err(reached) = Search::new(&operations).run() {
            let lines: Vec<String> = operations.iter().map(|one| one.to_string()).collect();
            return Err(format!(
                "{key}: at most {reached} of {} operations can be explained:\n{}",
                operations.len(),
                lines.join("\n")
            ));
        }
    }
    Ok(())
}

/// Each value has one version, each version one value, and a write that began after another had ended
/// has a higher one.
pub fn versions(history: &[Operation]) -> Result<(), String> {
    let mut of_value: BTreeMap<Value, u64> = BTreeMap::new();
    let mut of_version: BTreeMap<u64, Value> = BTreeMap::new();
    let mut writes = Vec::new();
    for operation in history {
        let value = match (operation.call, operation.outcome) {
            (Call::Get, Outcome::Read(value)) => value,
            (Call::Create(value) | Call::Swap { to: value, .. }, Outcome::Done) => value,
            _ => continue,
        };
        let Some(version) = operation.version else {
            continue;
        };
        if *of_value.entry(value).or_insert(version) != version {
            return Err(format!(
                "{operation}: {value} has two versions, one is {version}"
            ));
        }
        if *of_version.entry(version).or_insert(value) != value {
            return Err(format!(
                "{operation}: {version} is of two values, one is {value}"
            ));
        }
        if operation.call != Call::Get {
            writes.push((operation, version));
        }
    }
    writes.sort_by_key(|(operation, _)| operation.begin);
    let mut ended = writes.clone();
    ended.sort_by_key(|(operation, _)| operation.end);
    let mut ended = ended.into_iter().peekable();
    let mut highest = 0;
    for (operation, version) in writes {
        while let Some((_, before)) = ended.next_if(|(one, _)| one.end < operation.begin) {
            highest = highest.max(before);
        }
        if version <= highest {
            return Err(format!(
                "{operation}: has version {version}, after {highest} was given"
            ));
        }
    }
    Ok(())
}

/// What stands at a key.
type State = Option<Value>;

/// The state after a call with this outcome, if that outcome can be in this state.
fn apply(state: State, call: Call, outcome: Outcome) -> Option<State> {
    let unknown = outcome == Outcome::Unknown;
    match call {
        Call::Create(value) => match (state, outcome) {
            (None, Outcome::Done | Outcome::Unknown) => Some(Some(value)),
            (Some(_), Outcome::Other) => Some(state),
            _ => None,
        },
        Call::Swap { from, to } => match (state, outcome) {
            (Some(there), Outcome::Done) if there == from => Some(Some(to)),
            (Some(there), _) if there == from && unknown => Some(Some(to)),
            (Some(there), Outcome::Other) if there != from => Some(state),
            (None, Outcome::Absent) => Some(state),
            _ => None,
        },
        Call::Get => match (state, outcome) {
            (Some(there), Outcome::Read(value)) if there == value => Some(state),
            (None, Outcome::Absent) => Some(state),
            _ => None,
        },
        Call::Delete(value) => match (state, outcome) {
            (Some(there), Outcome::Done) if there == value => Some(None),
            (Some(there), _) if there == value && unknown => Some(None),
            (Some(there), Outcome::Other) if there != value => Some(state),
            (None, Outcome::Absent) => Some(state),
            _ => None,
        },
    }
}

/// A begin or an end, in a doubly linked list in the order of time. The first is a sentinel.
#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    is_end: bool,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

struct Search<'h> {
    operations: &'h [&'h Operation],
    events: Vec<Event>,
    /// Where an operation's end is in the list; [`NONE`] for an unknown outcome, which has none.
    ends: Vec<usize>,
    /// Which operations have been explained.
    explained: Vec<u64>,
    seen: HashSet<(Vec<u64>, State)>,
}

// === impl Search ===

impl<'h> Search<'h> {
    fn new(operations: &'h [&'h Operation]) -> Self {
        let mut times = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            times.push((operation.begin, at, false));
            if operation.outcome != Outcome::Unknown {
                times.push((operation.end, at, true));
            }
        }
        times.sort_unstable();
        let mut ends = vec![NONE; operations.len()];
        let mut events = vec![Event {
            operation: NONE,
            is_end: false,
            previous: NONE,
            next: if times.is_empty() { NONE } else { 1 },
        }];
        for (index, (_, operation, is_end)) in times.iter().copied().enumerate() {
            let at = index + 1;
            if is_end {
                ends[operation] = at;
            }
            events.push(Event {
                operation,
                is_end,
                previous: at - 1,
                next: if at == times.len() { NONE } else { at + 1 },
            });
        }
        Self {
            operations,
            events,
            ends,
            explained: vec![0; operations.len().div_ceil(64)],
            seen: HashSet::new(),
        }
    }

    /// Explains every operation whose outcome is known; otherwise says how many it could at most.
    fn run(mut self) -> Result<(), usize> {
        let mut open = self.ends.iter().filter(|end| **end != NONE).count();
        let mut state: State = None;
        let mut taken: Vec<(usize, State)> = Vec::new();
        let mut furthest = 0;
        let mut at = self.events[0].next;
        while open > 0 {
            furthest = furthest.max(taken.len());
            if at != NONE && !self.events[at].is_end {
                let one = self.events[at].operation;
                let next = apply(
                    state,
                    self.operations[one].call,
                    self.operations[one].outcome,
                );
                if let Some(next) = next
                    && self.is_new(one, next)
                {
                    taken.push((at, state));
                    open -= usize::from(self.ends[one] != NONE);
                    self.lift(at);
                    state = next;
                    at = self.events[0].next;
                    continue;
                }
                at = self.events[at].next;
                continue;
            }
            // An operation has ended that could not be explained so far: another order.
            let Some((last, before)) = taken.pop() else {
                return Err(furthest);
            };
            let one = self.events[last].operation;
            self.unlift(last);
            self.explained[one / 64] &= !(1 << (one % 64));
            open += usize::from(self.ends[one] != NONE);
            state = before;
            at = self.events[last].next;
        }
        Ok(())
    }

    /// Marks an operation as explained, if that with this state is a configuration not yet tried.
    fn is_new(&mut self, one: usize, state: State) -> bool {
        self.explained[one / 64] |= 1 << (one % 64);
        let new = self.seen.insert((self.explained.clone(), state));
        if !new {
            self.explained[one / 64] &= !(1 << (one % 64));
        }
        new
    }

    fn lift(&mut self, begin: usize) {
        self.unlink(begin);
        let end = self.ends[self.events[begin].operation];
        if end != NONE {
            self.unlink(end);
        }
    }

    fn unlift(&mut self, begin: usize) {
        let end = self.ends[self.events[begin].operation];
        if end != NONE {
            self.relink(end);
        }
        self.relink(begin);
    }

    fn unlink(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        self.events[previous].next = next;
        if next != NONE {
            self.events[next].previous = previous;
        }
    }

    fn relink(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        self.events[previous].next = at;
        if next != NONE {
            self.events[next].previous = at;
        }
    }
}

#[cfg(test)]
mod tests;
