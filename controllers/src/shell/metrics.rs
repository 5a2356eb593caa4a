//! Metrics of the work queues, under upstream's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bucket bounds in seconds, as upstream's work queues have them.
const BUCKETS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: &'static str,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The metrics of all controllers of a process.
#[derive(Clone, Debug)]
pub struct Metrics {
    adds: Family<Name, Counter<u64, AtomicU64>>,
    retries: Family<Name, Counter<u64, AtomicU64>>,
    depth: Family<Name, Gauge>,
    waited: Family<Name, Histogram, fn() -> Histogram>,
    worked: Family<Name, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            adds: Family::default(),
            retries: Family::default(),
            depth: Family::default(),
            waited: Family::new_with_constructor(histogram),
            worked: Family::new_with_constructor(histogram),
        }
    }
}

impl Metrics {
    /// Puts them into a registry, to be served at `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let queue = registry.sub_registry_with_prefix("workqueue");
        queue.register("adds", "Keys added to the queue", self.adds.clone());
        queue.register(
            "retries",
            "Keys added again after a failure",
            self.retries.clone(),
        );
        queue.register("depth", "Keys waiting in the queue", self.depth.clone());
        queue.register(
            "queue_duration_seconds",
            "How long a key waited before it was worked on",
            self.waited.clone(),
        );
        queue.register(
            "work_duration_seconds",
            "How long the work on a key took",
            self.worked.clone(),
        );
    }

    /// The metrics of one queue.
    pub fn queue(&self, name: &'static str) -> QueueMetrics {
        let name = Name { name };
        QueueMetrics {
            adds: self.adds.get_or_create_owned(&name),
            retries: self.retries.get_or_create_owned(&name),
            depth: self.depth.get_or_create_owned(&name),
            waited: self.waited.get_or_create_owned(&name),
            worked: self.worked.get_or_create_owned(&name),
        }
    }
}

/// The metrics of one queue.
#[derive(Clone)]
pub struct QueueMetrics {
    adds: Counter<u64, AtomicU64>,
    retries: Counter<u64, AtomicU64>,
    depth: Gauge,
    waited: Histogram,
    worked: Histogram,
}

impl QueueMetrics {
    pub(super) fn added(&self, depth: usize) {
        self.adds.inc();
        self.set_depth(depth);
    }

    pub(super) fn taken(&self, depth: usize, waited: Duration) {
        self.waited.observe(waited.as_secs_f64());
        self.set_depth(depth);
    }

    pub(super) fn finished(&self, depth: usize, worked: Duration) {
        self.worked.observe(worked.as_secs_f64());
        self.set_depth(depth);
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    fn set_depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }
}
