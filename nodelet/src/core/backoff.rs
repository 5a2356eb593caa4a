//! Waiting longer after each failure.

use jiff::{SignedDuration, Timestamp};

/// Waits of `FIRST_S` seconds doubling to `MAX_S`, forgotten after twice the longest without
/// failure: 10 s to 5 min for pulls and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff<const FIRST_S: i64 = 10, const MAX_S: i64 = 300> {
    wait_s: i64,
    since: Option<Timestamp>,
}

impl<const FIRST_S: i64, const MAX_S: i64> Backoff<FIRST_S, MAX_S> {
    /// Notes a failure at a time; the wait that follows it begins there.
    pub fn fail(&mut self, at: Timestamp) {
        let quiet = self
            .since
            .is_some_and(|since| at.duration_since(since).as_secs() > 2 * MAX_S + self.wait_s);
        self.wait_s = match self.wait_s {
            0 => FIRST_S,
            _ if quiet => FIRST_S,
            wait => (wait * 2).min(MAX_S),
        };
        self.since = Some(at);
    }

    /// When the wait is over; `None` if there is none.
    pub fn until(&self) -> Option<Timestamp> {
        let since = self.since?;
        since
            .checked_add(SignedDuration::from_secs(self.wait_s))
            .ok()
    }

    /// Length of the present wait, seconds.
    pub fn wait_s(&self) -> i64 {
        self.wait_s
    }

    /// Forgets all failures.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Goes on as if `failures` had gone before the one at `at`: for a count that outlived the
    /// agent.
    pub fn resume(&mut self, failures: u32, at: Timestamp) {
        for _ in 0..failures.min(6) {
            self.wait_s = (self.wait_s * 2).clamp(FIRST_S, MAX_S);
        }
        if failures > 0 {
            self.since = Some(at);
        }
    }
}

/// A run of this many seconds makes the next restart the first again.
const QUIET_S: i64 = 600;

/// The waits between a container's runs: the first restart is at once, the following ones after
/// the back-off of the exit before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    inner: Backoff,
    armed: bool,
}

impl CrashBackoff {
    /// Notes an exit.
    pub fn exited(&mut self, at: Timestamp) {
        let quiet = self
            .inner
            .since
            .is_some_and(|since| at.duration_since(since).as_secs() > QUIET_S);
        if quiet {
            *self = Self::default();
        }
        if self.armed {
            self.inner.fail(at);
        } else {
            self.armed = true;
            self.inner.since = Some(at);
        }
    }

    /// When the next run may start; `None` for at once.
    pub fn until(&self) -> Option<Timestamp> {
        if self.inner.wait_s == 0 {
            return None;
        }
        self.inner.until()
    }

    /// Length of the present wait, seconds.
    pub fn wait_s(&self) -> i64 {
        self.inner.wait_s()
    }

    /// Goes on from a restart count that outlived the agent.
    pub fn resume(&mut self, restarts: u32, at: Timestamp) {
        self.armed = true;
        self.inner.since = Some(at);
        self.inner.resume(restarts, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn doubles_to_five_minutes_and_forgets_after_ten() {
        let mut backoff: Backoff = Backoff::default();
        let mut waits = Vec::new();
        let mut now = 0;
        for _ in 0..7 {
            backoff.fail(at(now));
            waits.push(backoff.wait_s());
            now += backoff.wait_s();
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        backoff.fail(at(now + 601));
        assert_eq!(backoff.wait_s(), 10);
    }

    #[test]
    fn the_first_restart_is_at_once() {
        let mut crash = CrashBackoff::default();
        crash.exited(at(0));
        assert_eq!(crash.until(), None);
        crash.exited(at(1));
        assert_eq!(crash.until(), Some(at(11)));
        crash.exited(at(12));
        assert_eq!(crash.until(), Some(at(32)));
        crash.exited(at(12 + 601));
        assert_eq!(crash.until(), None);
    }
}
