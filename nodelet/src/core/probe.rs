//! When to probe, and what a row of results means.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Probe;
use peapod_api::k8s_openapi;

use super::event::{Outcome, ProbeKind};

/// One probe of one run of a container.
#[derive(Clone, Debug)]
pub struct ProbeState {
    /// Which.
    pub kind: ProbeKind,
    /// What it says now.
    pub passing: bool,
    due: Timestamp,
    in_flight: bool,
    run: i32,
    last: Option<bool>,
    /// A failed liveness or startup probe says nothing more until the container runs anew.
    held: bool,
}

impl ProbeState {
    /// A probe of a container that started at a time.
    pub fn new(kind: ProbeKind, probe: &Probe, started_at: Timestamp) -> Self {
        Self {
            kind,
            passing: kind == ProbeKind::Liveness,
            due: after(started_at, probe.initial_delay_seconds.unwrap_or(0)),
            in_flight: false,
            run: 0,
            last: None,
            held: false,
        }
    }

    /// When it is to run next; `None` while it runs or when it has nothing more to say.
    pub fn due(&self) -> Option<Timestamp> {
        let finished = self.kind == ProbeKind::Startup && self.passing;
        (!self.in_flight && !self.held && !finished).then_some(self.due)
    }

    /// Notes that it is being run. The next run is a period later, however long this one takes;
    /// one that takes longer than the period is followed at once, and never overlapped.
    pub fn launched(&mut self, probe: &Probe, now: Timestamp) {
        self.in_flight = true;
        self.due = after(now, probe.period_seconds.unwrap_or(10).max(1));
    }

    /// Notes a result; true if what the probe says has changed or, for a failure that must
    /// restart the container, has been reached.
    pub fn record(&mut self, probe: &Probe, outcome: &Outcome) -> bool {
        self.in_flight = false;
        let success = match outcome {
            Outcome::Success | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            // As if it had not been asked.
            Outcome::Unknown(_) => return false,
        };
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success {
            probe.success_threshold.unwrap_or(1)
        } else {
            probe.failure_threshold.unwrap_or(3)
        };
        if self.run < threshold {
            return false;
        }
        if !success && self.kind != ProbeKind::Readiness {
            self.held = true;
            self.passing = false;
            return true;
        }
        let changed = self.passing != success;
        self.passing = success;
        changed
    }
}

fn after(from: Timestamp, seconds: i32) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(seconds.into()))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(success: i32, failure: i32) -> Probe {
        Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        }
    }

    fn fail() -> Outcome {
        Outcome::Failure("no".to_owned())
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let spec = probe(2, 3);
        let mut state = ProbeState::new(ProbeKind::Readiness, &spec, Timestamp::UNIX_EPOCH);
        assert!(!state.record(&spec, &Outcome::Success));
        assert!(!state.record(&spec, &fail()));
        assert!(!state.record(&spec, &Outcome::Success));
        assert!(state.record(&spec, &Outcome::Success));
        assert!(state.passing);
        assert!(!state.record(&spec, &fail()));
        assert!(!state.record(&spec, &fail()));
        assert!(state.passing);
        assert!(state.record(&spec, &fail()));
        assert!(!state.passing);
    }

    #[test]
    fn what_is_not_known_neither_counts_nor_breaks_a_row() {
        let spec = probe(1, 2);
        let mut state = ProbeState::new(ProbeKind::Liveness, &spec, Timestamp::UNIX_EPOCH);
        let unknown = Outcome::Unknown("the runtime went away".to_owned());
        assert!(!state.record(&spec, &fail()));
        for _ in 0..5 {
            state.launched(&spec, Timestamp::UNIX_EPOCH);
            assert!(!state.record(&spec, &unknown));
            assert!(state.due().is_some(), "it is asked again");
        }
        assert!(state.passing);
        assert!(state.record(&spec, &fail()));
    }

    #[test]
    fn one_at_a_time_and_no_more_after_the_verdict() {
        let spec = probe(1, 1);
        let mut state = ProbeState::new(ProbeKind::Liveness, &spec, Timestamp::UNIX_EPOCH);
        state.launched(&spec, Timestamp::UNIX_EPOCH);
        assert_eq!(state.due(), None);
        assert!(state.record(&spec, &fail()));
        assert_eq!(state.due(), None);
    }
}
