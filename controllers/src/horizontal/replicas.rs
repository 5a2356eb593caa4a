//! How many replicas a metric asks for. Pure; amounts are in thousandths.
//!
//! Upstream's rules: pods that are not ready or have no figure are counted against the direction
//! in which the others point, so that a guess never makes the change larger.
//! <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details>

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use peapod_api::quantity::Quantity;

use crate::common::pods;

/// For so long after its start a pod's CPU is not believed unless it was measured when ready.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this time after its start was never ready.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// The figure of one pod.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What it uses, in thousandths.
    pub value: i64,
    /// The end of the time that the figure is of.
    pub at: Timestamp,
    /// Its length.
    pub window: SignedDuration,
}

/// The figures of pods, by their names.
pub type Samples = BTreeMap<String, Sample>;

/// How far from the target nothing is done.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Below it, as a share of the target.
    pub down: f64,
    /// Above it.
    pub up: f64,
}

/// What a metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// Replicas.
    pub replicas: i32,
    /// What a pod uses on average, in thousandths.
    pub average: i64,
    /// What that is of what it requested, in percent.
    pub utilization: Option<i32>,
}

/// The pods of a target, and what is asked about them.
pub struct Group<'a> {
    /// Replicas that there are now.
    pub current: i32,
    /// The pods that the target selects.
    pub pods: &'a [Pod],
    /// The resource that is measured; `None` for metrics of the pods' own.
    pub resource: Option<&'a str>,
    /// The container that is measured; `None` for all.
    pub container: Option<&'a str>,
    /// How far from the target nothing is done.
    pub tolerance: Tolerance,
    /// The time.
    pub now: Timestamp,
}

/// Pods by what their figures are worth.
#[derive(Default)]
struct Sorted {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

// === impl Tolerance ===

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

// === impl Group ===

impl Group<'_> {
    /// For a share of what the pods requested, in percent.
    pub fn by_utilization(&self, target: i32, samples: &Samples) -> Result<Count, String> {
        let requests = self.requests()?;
        let (sorted, samples) = self.sort(samples)?;
        let used = |samples: &Samples| {
            let (mut usage, mut requested) = (0i64, 0i64);
            for (pod, sample) in samples {
                if let Some(request) = requests.get(pod) {
                    usage = usage.saturating_add(sample.value);
                    requested = requested.saturating_add(*request);
                }
            }
            (usage, requested)
        };
        let ratio = |samples: &Samples| {
            let (usage, requested) = used(samples);
            share(usage, requested).map(|share| share / f64::from(target))
        };
        // A pod without a figure may use all that it requested, or the target if that is more.
        let full = |pod: &str| {
            let request = requests.get(pod).copied().unwrap_or(0);
            request.saturating_mul(i64::from(target.max(100))) / 100
        };
        let (usage, requested) = used(&samples);
        let measured = i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
        Ok(Count {
            average: usage / measured,
            utilization: Some(share(usage, requested)? as i32),
            replicas: self.settle(sorted, samples, ratio, full)?,
        })
    }

    /// For an average amount per pod.
    pub fn by_average(&self, target: i64, samples: &Samples) -> Result<Count, String> {
        let (sorted, samples) = self.sort(samples)?;
        let average = average(&samples);
        let ratio = |samples: &Samples| Ok(self::average(samples) as f64 / target as f64);
        Ok(Count {
            average,
            utilization: None,
            replicas: self.settle(sorted, samples, ratio, |_| target)?,
        })
    }

    /// For one amount that all of them share, as the length of a queue: ready pods carry it.
    pub fn by_value(&self, usage: i64, target: i64) -> i32 {
        let ratio = usage as f64 / target as f64;
        if self.current == 0 {
            // Nobody carries it yet.
            return ceil(ratio);
        }
        if self.tolerance.covers(ratio) {
            return self.current;
        }
        let ready = self.pods.iter().filter(|pod| pods::is_ready(pod)).count();
        ceil(ratio * ready as f64)
    }

    /// For one amount that is divided by the number of replicas.
    pub fn by_share(&self, usage: i64, target: i64, replicas: i32) -> Count {
        let ratio = usage as f64 / (target as f64 * f64::from(replicas));
        let replicas = match replicas > 0 && self.tolerance.covers(ratio) {
            true => replicas,
            false => ceil(usage as f64 / target as f64),
        };
        Count {
            replicas,
            average: usage / i64::from(self.current.max(1)),
            utilization: None,
        }
    }

    /// The replicas for what `ratio` says of the samples, 1 being the target; `full` is what a
    /// pod without a figure uses if the others point down.
    fn settle(
        &self,
        sorted: Sorted,
        mut samples: Samples,
        ratio: impl Fn(&Samples) -> Result<f64, String>,
        full: impl Fn(&str) -> i64,
    ) -> Result<i32, String> {
        let before = ratio(&samples)?;
        let rises_with_unready = before > 1.0 && !sorted.unready.is_empty();
        if !rises_with_unready && sorted.missing.is_empty() {
            return Ok(match self.tolerance.covers(before) {
                true => self.current,
                false => ceil(before * sorted.ready as f64),
            });
        }
        let guess = |value| Sample {
            value,
            at: self.now,
            window: SignedDuration::ZERO,
        };
        for pod in sorted.missing {
            let value = if before < 1.0 { full(&pod) } else { 0 };
            samples.insert(pod, guess(value));
        }
        if rises_with_unready {
            let idle = sorted.unready.into_iter().map(|pod| (pod, guess(0)));
            samples.extend(idle);
        }
        let after = ratio(&samples)?;
        let turned = (before < 1.0 && after > 1.0) || (before > 1.0 && after < 1.0);
        if self.tolerance.covers(after) || turned {
            return Ok(self.current);
        }
        let replicas = ceil(after * samples.len() as f64);
        let against =
            (after < 1.0 && replicas > self.current) || (after > 1.0 && replicas < self.current);
        Ok(if against { self.current } else { replicas })
    }

    /// Sorts the pods, and leaves the figures that count.
    fn sort(&self, samples: &Samples) -> Result<(Sorted, Samples), String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let (mut sorted, mut counted) = (Sorted::default(), Samples::new());
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if pod.metadata.deletion_timestamp.is_some() || phase == Some("Failed") {
                continue;
            }
            match samples.get(&name) {
                _ if phase == Some("Pending") => drop(sorted.unready.insert(name)),
                None => drop(sorted.missing.insert(name)),
                Some(sample) if self.resource == Some("cpu") && self.is_warming_up(pod, sample) => {
                    sorted.unready.insert(name);
                }
                Some(sample) => {
                    sorted.ready += 1;
                    counted.insert(name, *sample);
                }
            }
        }
        match counted.is_empty() {
            true => {
                Err("did not receive metrics for targeted pods (pods might be unready)".to_owned())
            }
            false => Ok((sorted, counted)),
        }
    }

    /// Whether a pod's CPU says more about its start than about its work.
    fn is_warming_up(&self, pod: &Pod, sample: &Sample) -> bool {
        let status = pod.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        let (Some(started), Some(ready)) = (started, ready) else {
            return true;
        };
        let turned = ready
            .last_transition_time
            .as_ref()
            .map_or(started.0, |time| time.0);
        let is_unready = ready.status == "False";
        if started.0 + CPU_INITIALIZATION > self.now {
            return is_unready || sample.at < turned + sample.window;
        }
        is_unready && started.0 + INITIAL_READINESS > turned
    }

    /// What each pod requested.
    fn requests(&self) -> Result<BTreeMap<String, i64>, String> {
        let resource = self.resource.unwrap_or_default();
        let mut requests = BTreeMap::new();
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let mut sum = 0i64;
            for container in measured(pod, self.container) {
                let request = request(container, resource).ok_or_else(|| {
                    let container = &container.name;
                    format!("missing request for {resource} in container {container} of Pod {name}")
                })?;
                sum = sum.saturating_add(request);
            }
            requests.insert(name, sum);
        }
        Ok(requests)
    }
}

/// The containers whose use is measured: sidecars are at work as long as the others.
fn measured<'a>(pod: &'a Pod, only: Option<&'a str>) -> impl Iterator<Item = &'a Container> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    });
    all.filter(move |container| only.is_none_or(|only| container.name == only))
}

fn request(container: &Container, resource: &str) -> Option<i64> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    amount(requests.get(resource)?)
}

/// A quantity in thousandths.
pub fn amount(text: &Text) -> Option<i64> {
    Quantity::try_from(text).ok().map(Quantity::milli)
}

fn average(samples: &Samples) -> i64 {
    let sum: i128 = samples
        .values()
        .map(|sample| i128::from(sample.value))
        .sum();
    let count = i128::try_from(samples.len()).unwrap_or(1).max(1);
    i64::try_from(sum / count).unwrap_or(i64::MAX)
}

/// A whole number of percent, as upstream counts it.
fn share(usage: i64, requested: i64) -> Result<f64, String> {
    if requested == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i128::from(usage) * 100 / i128::from(requested);
    Ok(percent as f64)
}

fn ceil(replicas: f64) -> i32 {
    // Saturates.
    replicas.ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const START: &str = "2026-01-01T00:00:00Z";

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, ready: bool) -> Pod {
        let ready = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "startTime": START, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": START},
            ]},
        }))
        .unwrap()
    }

    fn samples(values: &[i64]) -> Samples {
        let one = |(number, value): (usize, &i64)| {
            let window = SignedDuration::from_secs(30);
            (
                format!("p{number}"),
                Sample {
                    value: *value,
                    at: now(),
                    window,
                },
            )
        };
        values.iter().enumerate().map(one).collect()
    }

    fn pods(ready: usize, unready: usize) -> Vec<Pod> {
        let all = 0..ready + unready;
        all.map(|number| pod(&format!("p{number}"), number < ready))
            .collect()
    }

    fn group(pods: &[Pod], current: i32) -> Group<'_> {
        let tolerance = Tolerance { down: 0.1, up: 0.1 };
        Group {
            current,
            pods,
            resource: Some("cpu"),
            container: None,
            tolerance,
            now: now(),
        }
    }

    fn replicas(pods: &[Pod], target: i32, values: &[i64]) -> i32 {
        let current = i32::try_from(pods.len()).unwrap();
        group(pods, current)
            .by_utilization(target, &samples(values))
            .unwrap()
            .replicas
    }

    #[test]
    fn replicas_follow_the_share_of_the_request() {
        assert_eq!(replicas(&pods(3, 0), 30, &[300, 500, 700]), 5);
        assert_eq!(replicas(&pods(5, 0), 50, &[100, 300, 500, 250, 250]), 3);
        assert_eq!(
            replicas(&pods(3, 0), 50, &[510, 500, 520]),
            3,
            "near enough"
        );
    }

    #[test]
    fn pods_that_are_not_ready_dampen_a_rise() {
        assert_eq!(replicas(&pods(1, 2), 30, &[300, 0, 0]), 3, "nothing to do");
        assert_eq!(replicas(&pods(2, 1), 30, &[500, 700, 300]), 4);
    }

    #[test]
    fn pods_without_figures_dampen_both_ways() {
        assert_eq!(
            replicas(&pods(4, 0), 100, &[200, 200]),
            3,
            "they may use all"
        );
        assert_eq!(
            replicas(&pods(3, 0), 50, &[1000, 1000]),
            4,
            "they may use nothing"
        );
    }

    #[test]
    fn what_cannot_be_told() {
        let unready = pods(0, 2);
        let fault = group(&unready, 2)
            .by_utilization(50, &Samples::new())
            .unwrap_err();
        assert!(fault.contains("did not receive metrics"), "{fault}");
        let mut none = pods(1, 0);
        none[0].spec.as_mut().unwrap().containers[0].resources = None;
        let fault = group(&none, 1)
            .by_utilization(50, &samples(&[1]))
            .unwrap_err();
        assert_eq!(fault, "missing request for cpu in container c of Pod p0");
    }

    #[test]
    fn amounts_that_pods_share() {
        let three = pods(3, 0);
        assert_eq!(group(&three, 3).by_value(20_000, 10_000), 6);
        assert_eq!(group(&[], 0).by_value(20_000, 10_000), 2, "from nothing");
        assert_eq!(group(&three, 3).by_share(42_000, 10_000, 3).replicas, 5);
        assert_eq!(group(&three, 3).by_share(31_000, 10_000, 3).replicas, 3);
    }

    proptest! {
        /// Whatever is measured, a load above the target never takes replicas away, and one below
        /// never adds any.
        #[test]
        fn the_direction_is_the_loads(
            values in proptest::collection::vec(0i64..3000, 1..8),
            (unready, missing, target) in (0usize..4, 0usize..4, 1i32..150),
        ) {
            let all = pods(values.len(), unready + missing);
            let current = i32::try_from(all.len()).unwrap();
            let count = group(&all, current).by_utilization(target, &samples(&values)).unwrap();
            let average = values.iter().sum::<i64>() / i64::try_from(values.len()).unwrap() / 10;
            if average > i64::from(target) {
                prop_assert!(count.replicas >= current.min(i32::try_from(values.len()).unwrap()));
            } else {
                prop_assert!(count.replicas <= current);
            }
        }
    }
}
