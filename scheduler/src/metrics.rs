//! The scheduler's figures, under kube-scheduler's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::core::queue::Counts;

/// The figures; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    attempts: Family<Attempt, Counter>,
    attempt_duration: Family<Attempt, Histogram, fn() -> Histogram>,
    algorithm_duration: Histogram,
    pending: Family<Place, Gauge<f64, AtomicU64>>,
    preemptions: Counter,
    victims: Histogram,
    dropped_events: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    result: &'static str,
    profile: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    queue: &'static str,
}

/// How an attempt to schedule a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod is bound.
    Scheduled,
    /// No node can take it.
    Unschedulable,
    /// The binding failed.
    Error,
}

/// Seconds: 0.1 ms doubling to 13 s.
fn seconds() -> Histogram {
    Histogram::new((0..18).map(|power| 0.0001 * f64::from(1 << power)))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            attempt_duration: Family::new_with_constructor(seconds),
            algorithm_duration: seconds(),
            pending: Family::default(),
            preemptions: Counter::default(),
            victims: Histogram::new((0..7).map(|power| f64::from(1 << power))),
            dropped_events: Counter::default(),
        }
    }
}

impl Metrics {
    /// Shows the figures in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "scheduler_schedule_attempts",
            "Number of attempts to schedule pods, by the result",
            self.attempts.clone(),
        );
        registry.register(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            self.attempt_duration.clone(),
        );
        registry.register(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Scheduling algorithm latency in seconds",
            self.algorithm_duration.clone(),
        );
        registry.register(
            "scheduler_pending_pods",
            "Number of pending pods, by the queue",
            self.pending.clone(),
        );
        registry.register(
            "scheduler_preemption_attempts",
            "Total preemption attempts in the cluster till now",
            self.preemptions.clone(),
        );
        registry.register(
            "scheduler_preemption_victims",
            "Number of selected preemption victims",
            self.victims.clone(),
        );
        registry.register(
            "scheduler_dropped_events",
            "Number of events that were not written because too many were waiting",
            self.dropped_events.clone(),
        );
    }

    pub(crate) fn attempt(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        };
        let attempt = Attempt {
            result,
            profile: "default-scheduler",
        };
        self.attempts.get_or_create(&attempt).inc();
        let durations = self.attempt_duration.get_or_create(&attempt);
        durations.observe(took.as_secs_f64());
    }

    pub(crate) fn decided(&self, took: Duration) {
        self.algorithm_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }

    pub(crate) fn event_dropped(&self) {
        self.dropped_events.inc();
    }

    pub(crate) fn pending(&self, counts: Counts) {
        for (queue, count) in [
            ("active", counts.active),
            ("backoff", counts.backoff),
            ("unschedulable", counts.unschedulable),
            ("gated", counts.gated),
        ] {
            let gauge = self.pending.get_or_create(&Place { queue });
            gauge.set(count as f64);
        }
    }
}
