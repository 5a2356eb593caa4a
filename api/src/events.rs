//! Which events are written and how, decided alike by all who tell of objects: repetitions are
//! counted, many alike are told as one, and nobody floods the API about one object. The numbers are
//! client-go's.
//!
//! Whoever writes events asks [`Correlator::observe`] what to do, and says what became of it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

/// From how many different messages of one kind on events are told as one.
const ALIKE_MAX: usize = 10;
/// How long after the last event of a kind the next one is not alike any more, in seconds.
const ALIKE_SECONDS: f64 = 600.0;
/// How many events of one source about one object may come at once.
const BURST: f64 = 25.0;
/// How many more may come in a second.
const PER_SECOND: f64 = 1.0 / 300.0;
/// What precedes the last message of those that are told as one.
pub const COMBINED: &str = "(combined from similar events): ";

/// Something that is to be told of an object.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence<'a> {
    /// Who tells: a component, and its node if it has one.
    pub source: &'a str,
    /// The object: its uid, or what else is its alone.
    pub about: &'a str,
    /// The part of it, as `spec.containers{c}`.
    pub part: &'a str,
    /// `Normal` or `Warning`.
    pub kind: &'a str,
    /// One word.
    pub reason: &'a str,
    /// A sentence.
    pub message: &'a str,
}

/// How an occurrence is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The event that is counted up; without one a new event is written.
    pub name: Option<String>,
    /// How often it has happened.
    pub count: i32,
    /// What the event says.
    pub message: String,
    key: String,
}

/// What was told lately.
#[derive(Debug)]
pub struct Correlator {
    alike: Recent<Alike>,
    written: Recent<Written>,
    budgets: Recent<Budget>,
}

/// Events that differ in their message only.
#[derive(Debug)]
struct Alike {
    messages: HashSet<String>,
    at: Timestamp,
}

/// An event that stands in the API.
#[derive(Debug)]
struct Written {
    name: String,
    count: i32,
}

/// What one source may still say of one object.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

/// The most recently used of something, by a key.
#[derive(Debug)]
struct Recent<V> {
    max: usize,
    turn: u64,
    values: HashMap<String, (u64, V)>,
}

// === impl Correlator ===

impl Correlator {
    /// Remembers at most so many of each kind.
    pub fn new(max: usize) -> Self {
        Self {
            alike: Recent::new(max),
            written: Recent::new(max),
            budgets: Recent::new(max),
        }
    }

    /// How an occurrence is to be written; `None` when too much was said of its object.
    pub fn observe(&mut self, occurrence: &Occurrence<'_>, now: Timestamp) -> Option<Told> {
        let Occurrence {
            source,
            about,
            part,
            kind,
            reason,
            message,
        } = *occurrence;
        let of_kind = [source, about, kind, reason].join("\0");
        let (key, message) = match self.are_many(&of_kind, message, now) {
            true => (of_kind, format!("{COMBINED}{message}")),
            false => ([&of_kind, part, message].join("\0"), message.to_owned()),
        };
        self.may_tell(&[source, about].join("\0"), now)
            .then(|| match self.written.get(&key) {
                Some(before) => {
                    before.count = before.count.saturating_add(1);
                    Told {
                        name: Some(before.name.clone()),
                        count: before.count,
                        message,
                        key,
                    }
                }
                None => Told {
                    name: None,
                    count: 1,
                    message,
                    key,
                },
            })
    }

    /// A new event was written under this name.
    pub fn written(&mut self, told: &Told, name: String) {
        let written = Written {
            name,
            count: told.count,
        };
        self.written.insert(&told.key, written);
    }

    /// The event that was to be counted up is not there any more: gives how to write it anew.
    pub fn gone(&mut self, told: Told) -> Told {
        self.written.remove(&told.key);
        Told {
            name: None,
            count: 1,
            ..told
        }
    }

    /// Whether there were so many messages of a kind that they are told as one.
    fn are_many(&mut self, of_kind: &str, message: &str, now: Timestamp) -> bool {
        let new = || Alike {
            messages: HashSet::new(),
            at: now,
        };
        let alike = self.alike.get_or_insert(of_kind, new);
        if seconds(alike.at, now) > ALIKE_SECONDS {
            alike.messages.clear();
        }
        alike.at = now;
        if alike.messages.len() < ALIKE_MAX {
            alike.messages.insert(message.to_owned());
        }
        alike.messages.len() >= ALIKE_MAX
    }

    fn may_tell(&mut self, key: &str, now: Timestamp) -> bool {
        let new = || Budget {
            tokens: BURST,
            at: now,
        };
        let budget = self.budgets.get_or_insert(key, new);
        let earned = seconds(budget.at, now).max(0.0) * PER_SECOND;
        budget.tokens = (budget.tokens + earned).min(BURST);
        budget.at = now;
        let may = budget.tokens >= 1.0;
        if may {
            budget.tokens -= 1.0;
        }
        may
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

// === impl Recent ===

impl<V> Recent<V> {
    fn new(max: usize) -> Self {
        Self {
            max,
            turn: 0,
            values: HashMap::new(),
        }
    }

    fn get(&mut self, key: &str) -> Option<&mut V> {
        self.turn += 1;
        let (turn, value) = self.values.get_mut(key)?;
        *turn = self.turn;
        Some(value)
    }

    fn insert(&mut self, key: &str, value: V) {
        self.make_room(key);
        self.turn += 1;
        self.values.insert(key.to_owned(), (self.turn, value));
    }

    fn get_or_insert(&mut self, key: &str, new: impl FnOnce() -> V) -> &mut V {
        self.make_room(key);
        self.turn += 1;
        let turn = self.turn;
        let (used, value) = self
            .values
            .entry(key.to_owned())
            .or_insert_with(|| (turn, new()));
        *used = turn;
        value
    }

    fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Forgets what was not used for longest, if a new key would be one too many.
    fn make_room(&mut self, key: &str) {
        if self.values.len() < self.max || self.values.contains_key(key) {
            return;
        }
        let oldest = self.values.iter().min_by_key(|(_, (turn, _))| *turn);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn occurrence<'a>(about: &'a str, message: &'a str) -> Occurrence<'a> {
        Occurrence {
            source: "kubelet n1",
            about,
            part: "",
            kind: "Warning",
            reason: "BackOff",
            message,
        }
    }

    /// Observes and, as the API would, gives a new event a name.
    fn tell(to: &mut Correlator, about: &str, message: &str, now: i64) -> Option<Told> {
        let told = to.observe(&occurrence(about, message), at(now))?;
        if told.name.is_none() {
            to.written(&told, format!("{about}.{now}"));
        }
        Some(told)
    }

    #[test]
    fn repetitions_are_counted() {
        let mut to = Correlator::new(8);
        assert_eq!(tell(&mut to, "a", "m", 0).unwrap().name, None);
        let again = tell(&mut to, "a", "m", 1).unwrap();
        assert_eq!((again.name.as_deref(), again.count), (Some("a.0"), 2));
        assert_eq!(tell(&mut to, "b", "m", 2).unwrap().name, None);
        let lost = to.observe(&occurrence("a", "m"), at(3)).unwrap();
        let anew = to.gone(lost);
        assert_eq!((anew.name, anew.count), (None, 1));
    }

    #[test]
    fn many_alike_are_told_as_one() {
        let mut to = Correlator::new(64);
        for n in 0..9 {
            let told = tell(&mut to, "a", &format!("m{n}"), n).unwrap();
            assert_eq!((told.name, told.message), (None, format!("m{n}")));
        }
        let first = tell(&mut to, "a", "m9", 9).unwrap();
        assert_eq!(first.message, "(combined from similar events): m9");
        let second = tell(&mut to, "a", "m10", 10).unwrap();
        assert_eq!((second.name.as_deref(), second.count), (Some("a.9"), 2));
        assert_eq!(second.message, "(combined from similar events): m10");
        let later = tell(&mut to, "a", "m11", 10 + 601).unwrap();
        assert_eq!(later.message, "m11");
    }

    #[test]
    fn one_source_does_not_flood() {
        let mut to = Correlator::new(64);
        let told = |to: &mut Correlator, now| tell(to, "a", "m", now).is_some();
        assert!((0..25).all(|_| told(&mut to, 0)));
        assert!(!told(&mut to, 1));
        assert!(tell(&mut to, "b", "m", 1).is_some());
        assert!(!told(&mut to, 299));
        assert!(told(&mut to, 301));
        assert!(!told(&mut to, 302));
    }

    #[test]
    fn memory_is_bounded() {
        let mut to = Correlator::new(2);
        for about in ["a", "b", "c"] {
            tell(&mut to, about, "m", 0);
        }
        assert_eq!(to.written.values.len(), 2);
        assert!(tell(&mut to, "c", "m", 1).unwrap().name.is_some());
        assert!(tell(&mut to, "a", "m", 1).unwrap().name.is_none());
    }
}
