//! Ever longer pauses between attempts at the same thing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Things remembered; beyond, those that rest longest are forgotten.
const REMEMBERED: usize = 4096;

/// The pauses by thing.
pub struct Backoff<K> {
    first: Duration,
    last: Duration,
    attempts: Mutex<HashMap<K, Attempt>>,
}

struct Attempt {
    at: Instant,
    pause: Duration,
}

impl<K: Eq + Hash + Clone> Backoff<K> {
    /// Pauses that begin with `first` and double up to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            attempts: Mutex::new(HashMap::new()),
        }
    }

    /// How long to wait yet; `None` for an attempt now, which is noted.
    pub fn next(&self, thing: &K, now: Instant) -> Option<Duration> {
        let mut attempts = self.attempts.lock();
        // What has rested for twice its pause begins anew.
        if attempts.len() >= REMEMBERED {
            attempts.retain(|_, past| now.duration_since(past.at) < past.pause * 2);
        }
        let pause = match attempts.get(thing) {
            Some(past) if now.duration_since(past.at) < past.pause => {
                return Some(past.pause - now.duration_since(past.at));
            }
            Some(past) if now.duration_since(past.at) < past.pause * 2 + self.first => {
                (past.pause * 2).min(self.last)
            }
            _ => self.first,
        };
        attempts.insert(thing.clone(), Attempt { at: now, pause });
        None
    }

    /// How long to wait before the next attempt, after one that failed, noted before or not.
    pub fn pause(&self, thing: &K, now: Instant) -> Duration {
        let noted = self.next(thing, now);
        noted
            .or_else(|| self.next(thing, now))
            .unwrap_or(self.first)
    }

    /// Forgets a thing that went well: its next attempt is the first.
    pub fn forget(&self, thing: &K) {
        self.attempts.lock().remove(thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_there_is_rest() {
        let second = Duration::from_secs(1);
        let backoff = Backoff::new(second, second * 3);
        let start = Instant::now();
        assert_eq!(backoff.next(&"a", start), None);
        assert_eq!(backoff.next(&"a", start), Some(second));
        assert_eq!(backoff.next(&"b", start), None);
        assert_eq!(backoff.next(&"a", start + second), None);
        assert_eq!(backoff.next(&"a", start + second * 2), Some(second));
        assert_eq!(backoff.next(&"a", start + second * 3), None);
        assert_eq!(backoff.next(&"a", start + second * 3), Some(second * 3));
        assert_eq!(backoff.next(&"a", start + second * 90), None);
        assert_eq!(backoff.next(&"a", start + second * 90), Some(second));
        assert_eq!(backoff.pause(&"a", start + second * 90), second);
        assert_eq!(backoff.pause(&"c", start), second, "not noted before");
        backoff.forget(&"a");
        assert_eq!(backoff.next(&"a", start + second * 90), None);
    }
}
