//! How a container is brought to its end: hook, stop signal, and SIGKILL when its time is up.

use jiff::{SignedDuration, Timestamp};

use super::event::StopSignal;

/// What a container gets after its hook, however long that took, seconds.
const LEAST_AFTER_HOOK_S: i64 = 2;
/// A kill that was not followed by an exit is repeated after this, seconds.
const KILL_AGAIN_S: i64 = 10;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The hook runs.
    PreStop,
    /// The hook is done, the stop signal is due.
    SignalDue,
    /// The stop signal is out.
    Signalled,
    /// SIGKILL is out since then.
    Killed(Timestamp),
}

/// The end of a container, from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How far it is.
    pub stage: Stage,
    /// When its time is up.
    pub deadline: Timestamp,
    /// Not before then, whatever the pod's own deadline is: what is due after a hook.
    floor: Timestamp,
}

/// `from` plus seconds, at most the end of time.
pub fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

impl Stop {
    /// Begins an end that may take so many seconds. Without grace there is no hook.
    pub fn begin(now: Timestamp, grace_s: i64, has_hook: bool) -> Self {
        let hook = has_hook && grace_s > 0;
        Self {
            stage: if hook {
                Stage::PreStop
            } else {
                Stage::SignalDue
            },
            deadline: later(now, grace_s.max(0)),
            floor: now,
        }
    }

    /// Shortens the time that is left; it is never prolonged.
    pub fn hurry(&mut self, deadline: Timestamp) {
        self.deadline = self.deadline.min(deadline.max(self.floor));
    }

    /// Notes the end of the hook.
    pub fn hook_done(&mut self, now: Timestamp) {
        if self.stage == Stage::PreStop {
            self.stage = Stage::SignalDue;
            self.floor = later(now, LEAST_AFTER_HOOK_S);
            self.deadline = self.deadline.max(self.floor);
        }
    }

    /// The signal to send now, if one is due.
    pub fn advance(&mut self, now: Timestamp) -> Option<StopSignal> {
        if self.stage == Stage::PreStop && now >= self.deadline {
            self.hook_done(now);
        }
        match self.stage {
            Stage::SignalDue => {
                self.stage = Stage::Signalled;
                Some(StopSignal::Stop)
            }
            Stage::Signalled if now >= self.deadline => self.kill(now),
            Stage::Killed(at) if now >= later(at, KILL_AGAIN_S) => self.kill(now),
            _ => None,
        }
    }

    fn kill(&mut self, now: Timestamp) -> Option<StopSignal> {
        self.stage = Stage::Killed(now);
        Some(StopSignal::Kill)
    }

    /// When to look again.
    pub fn wake_at(&self) -> Timestamp {
        match self.stage {
            Stage::Killed(at) => later(at, KILL_AGAIN_S),
            _ => self.deadline,
        }
    }
}
