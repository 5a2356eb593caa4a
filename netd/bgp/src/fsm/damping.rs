//! How long a peer stays Idle after a session ended badly (IdleHoldTimer with
//! DampPeerOscillations, RFC 4271 section 8.1.1): doubled each time, forgiven after a session
//! that held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// First wait.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(64);
/// A session that held this long shows that the peer is well.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The memory of how a peer behaved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damping {
    failures: u32,
    established_at: Option<Time>,
}

impl Damping {
    /// The session came up.
    pub fn established(&mut self, now: Time) {
        self.established_at = Some(now);
    }

    /// The session, or the attempt at one, failed: how long to stay Idle.
    pub fn failed(&mut self, now: Time) -> Duration {
        let held = self
            .established_at
            .take()
            .is_some_and(|at| now - at >= FORGIVEN_AFTER);
        if held {
            self.failures = 0;
        }
        let wait = (FIRST * 2u32.pow(self.failures.min(6))).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// An operator's start forgives.
    pub fn forgive(&mut self) {
        *self = Damping::default();
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_a_long_session_forgives() {
        let mut damping = Damping::default();
        let waits: Vec<u64> = (0..9).map(|_| damping.failed(Time(0)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        damping.established(Time(0));
        assert_eq!(damping.failed(Time(59_000)).as_secs(), 64);
        damping.established(Time(0));
        assert_eq!(damping.failed(Time(60_000)).as_secs(), 1);
    }
}
