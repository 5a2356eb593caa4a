//! What flow control counts, under upstream's names. Looked up when the configuration changes,
//! so that a request only adds.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::level::Refused;
use super::shares::Bounds;

/// Bounds of the waiting times, in seconds: upstream's.
const WAITS: [f64; 14] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfFlow {
    flow_schema: String,
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rejection {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Waited {
    execute: &'static str,
    flow_schema: String,
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfLevel {
    priority_level: String,
}

/// All families.
#[derive(Clone)]
pub struct Meters {
    dispatched: Family<OfFlow, Counter>,
    rejected: Family<Rejection, Counter>,
    inqueue: Family<OfFlow, Gauge>,
    executing: Family<OfFlow, Gauge>,
    seats: Family<OfFlow, Gauge>,
    waits: Family<Waited, Histogram>,
    execution: Family<OfFlow, Histogram>,
    nominal: Family<OfLevel, Gauge>,
    lower: Family<OfLevel, Gauge>,
    upper: Family<OfLevel, Gauge>,
    current: Family<OfLevel, Gauge>,
}

/// Those of one schema and level.
pub struct FlowMeters {
    /// Requests that were let in.
    pub dispatched: Counter,
    /// Requests that wait, or are about to be let in.
    pub inqueue: Gauge,
    /// Requests in work.
    pub executing: Gauge,
    /// Their seats.
    pub seats: Gauge,
    /// How long those waited that were let in.
    pub waited: Histogram,
    /// How long those waited that were not.
    pub waited_in_vain: Histogram,
    /// How long they worked.
    pub execution: Histogram,
    rejected: [(Refused, Counter); 3],
}

/// Those of one level.
pub struct LevelMeters {
    nominal: Gauge,
    lower: Gauge,
    upper: Gauge,
    current: Gauge,
}

// === impl Meters ===

impl Meters {
    /// Registers all families.
    pub fn new(registry: &mut Registry) -> Self {
        let histogram = || Histogram::new(WAITS);
        let meters = Self {
            dispatched: Family::default(),
            rejected: Family::default(),
            inqueue: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            waits: Family::new_with_constructor(histogram),
            execution: Family::new_with_constructor(histogram),
            nominal: Family::default(),
            lower: Family::default(),
            upper: Family::default(),
            current: Family::default(),
        };
        let to = registry.sub_registry_with_prefix("apiserver_flowcontrol");
        to.register(
            "dispatched_requests",
            "Requests let in by flow control",
            meters.dispatched.clone(),
        );
        to.register(
            "rejected_requests",
            "Requests rejected by flow control",
            meters.rejected.clone(),
        );
        for (name, help, gauge) in [
            (
                "current_inqueue_requests",
                "Requests that wait",
                &meters.inqueue,
            ),
            (
                "current_executing_requests",
                "Requests in work",
                &meters.executing,
            ),
            (
                "current_executing_seats",
                "Seats of the requests in work",
                &meters.seats,
            ),
        ] {
            to.register(name, help, gauge.clone());
        }
        to.register(
            "request_wait_duration_seconds",
            "How long requests waited in their queues",
            meters.waits.clone(),
        );
        to.register(
            "request_execution_seconds",
            "How long requests were in work",
            meters.execution.clone(),
        );
        for (name, help, gauge) in [
            (
                "nominal_limit_seats",
                "Seats of a level by its shares",
                &meters.nominal,
            ),
            (
                "lower_limit_seats",
                "Seats that a level keeps",
                &meters.lower,
            ),
            ("upper_limit_seats", "Most seats of a level", &meters.upper),
            (
                "current_limit_seats",
                "Seats of a level now",
                &meters.current,
            ),
        ] {
            to.register(name, help, gauge.clone());
        }
        meters
    }

    /// Those of one schema and level.
    pub fn flow(&self, schema: &str, level: &str) -> FlowMeters {
        let labels = OfFlow {
            flow_schema: schema.to_owned(),
            priority_level: level.to_owned(),
        };
        let waits = |execute| {
            let labels = Waited {
                execute,
                flow_schema: schema.to_owned(),
                priority_level: level.to_owned(),
            };
            self.waits.get_or_create(&labels).clone()
        };
        let rejected = [Refused::Limit, Refused::Full, Refused::TimedOut].map(|refused| {
            let labels = Rejection {
                flow_schema: schema.to_owned(),
                priority_level: level.to_owned(),
                reason: refused.reason(),
            };
            (refused, self.rejected.get_or_create(&labels).clone())
        });
        FlowMeters {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            inqueue: self.inqueue.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            seats: self.seats.get_or_create(&labels).clone(),
            waited: waits("true"),
            waited_in_vain: waits("false"),
            execution: self.execution.get_or_create(&labels).clone(),
            rejected,
        }
    }

    /// Those of one level.
    pub fn level(&self, level: &str) -> LevelMeters {
        let labels = OfLevel {
            priority_level: level.to_owned(),
        };
        LevelMeters {
            nominal: self.nominal.get_or_create(&labels).clone(),
            lower: self.lower.get_or_create(&labels).clone(),
            upper: self.upper.get_or_create(&labels).clone(),
            current: self.current.get_or_create(&labels).clone(),
        }
    }
}

// === impl FlowMeters ===

impl FlowMeters {
    /// Counts a request that was turned away.
    pub fn refuse(&self, why: Refused) {
        let found = self.rejected.iter().find(|(reason, _)| *reason == why);
        if let Some((_, counter)) = found {
            counter.inc();
        }
    }
}

// === impl LevelMeters ===

impl LevelMeters {
    /// Shows what a level may have.
    pub fn bounds(&self, bounds: Bounds) {
        self.nominal.set(bounds.nominal.into());
        self.lower.set(bounds.lower.into());
        self.upper.set(bounds.upper.into());
    }

    /// Shows what it has.
    pub fn limit(&self, limit: u32) {
        self.current.set(limit.into());
    }
}
