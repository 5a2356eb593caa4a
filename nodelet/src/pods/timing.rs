//! Where the time of a pod's start goes: what the node agent did for it, when, and for how long. Kept
//! for as long as the pod is; served at `/timing`, and printed by `peapod describe pod`.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Steps that are kept, from the beginning: a start with some containers and probes.
const STEPS_MAX: usize = 48;

/// The steps of a pod's start.
#[derive(Debug)]
pub struct Timing {
    /// When the agent first saw the pod.
    seen: Instant,
    steps: Mutex<Vec<Step>>,
}

/// Something that took time. Steps may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: &'static str,
    container: String,
    /// Since the pod was seen.
    began: Duration,
    took: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            seen: Instant::now(),
            steps: Mutex::default(),
        }
    }
}

impl Timing {
    /// Does something and remembers how long it took; `container` may be empty.
    pub async fn of<T>(
        &self,
        name: &'static str,
        container: &str,
        work: impl Future<Output = T>,
    ) -> T {
        let began = Instant::now();
        let done = work.await;
        self.note(name, container, began - self.seen, began.elapsed());
        done
    }

    fn note(&self, name: &'static str, container: &str, began: Duration, took: Duration) {
        let mut steps = self.steps.lock();
        if steps.len() < STEPS_MAX {
            steps.push(Step {
                name,
                container: container.to_owned(),
                began,
                took,
            });
        }
    }

    /// As a document: times in milliseconds since the agent saw the pod, in the order in which the steps
    /// ended.
    pub fn document(&self) -> Value {
        let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let steps = self.steps.lock();
        let step = |step: &Step| {
            json!({
                "step": step.name,
                "container": step.container,
                "beganMs": ms(step.began),
                "tookMs": ms(step.took),
            })
        };
        steps.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_timed_from_when_the_pod_was_seen() {
        let timing = Timing::default();
        let ms = Duration::from_millis;
        timing.note("create", "app", ms(3), ms(20));
        let step = json!({"step": "create", "container": "app", "beganMs": 3.0, "tookMs": 20.0});
        assert_eq!(timing.document(), json!([step]));
        for _ in 0..STEPS_MAX {
            timing.note("report", "", ms(30), ms(1));
        }
        assert_eq!(timing.document().as_array().unwrap().len(), STEPS_MAX);
    }
}
