//! What the scheduler is told when it starts.

use crate::metrics::Metrics;

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose pods are scheduled: `spec.schedulerName`.
    pub scheduler_name: String,
    /// How many bindings may be on their way at once.
    pub max_binds: usize,
    /// Where ties are broken from. The same seed and the same changes give the same decisions.
    pub seed: u64,
    /// Where the figures go; register them with [`Metrics::register`].
    pub metrics: Metrics,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            max_binds: 128,
            seed: rand::random(),
            metrics: Metrics::default(),
        }
    }
}
