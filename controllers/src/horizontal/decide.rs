//! What becomes of an autoscaler's proposals: the new number of replicas, and what is said of it.
//! Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rates::{Memory, Rates};

/// What one metric asks for.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Replicas.
    pub replicas: i32,
    /// The metric, as people are told of it.
    pub metric: String,
    /// What it is now.
    pub status: MetricStatus,
}

/// Why something could not be found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// One word, as `FailedGetResourceMetric`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// The target as its scale shows it.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Replicas that are asked for.
    pub wanted: i32,
    /// Replicas that there are.
    pub there: i32,
}

/// What is to be done.
#[derive(Debug)]
pub struct Decision {
    /// Replicas that there should be.
    pub desired: i32,
    /// Why, when that is a change.
    pub reason: String,
    /// What could not be found out, for an event.
    pub fault: Option<Fault>,
}

/// Conditions, each of which keeps its time as long as it says the same.
pub struct Conditions {
    all: Vec<HorizontalPodAutoscalerCondition>,
    now: Timestamp,
}

impl Conditions {
    /// Those that an object has.
    pub fn of(hpa: &HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let status = hpa.status.as_ref();
        let all = status.and_then(|status| status.conditions.clone());
        Self {
            all: all.unwrap_or_default(),
            now,
        }
    }

    /// Sets one.
    pub fn set(&mut self, kind: &str, is: bool, reason: &str, message: impl Into<String>) {
        let status = if is { "True" } else { "False" };
        let at = self
            .all
            .iter()
            .position(|condition| condition.type_ == kind);
        let at = at.unwrap_or_else(|| {
            self.all.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                ..Default::default()
            });
            self.all.len() - 1
        });
        let condition = &mut self.all[at];
        if condition.status != status {
            condition.status = status.to_owned();
            condition.last_transition_time = Some(Time(self.now));
        }
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    /// The status that an object should have.
    pub fn into_status(
        self,
        hpa: &HorizontalPodAutoscaler,
        scale: Option<Scale>,
        desired: i32,
        metrics: Vec<MetricStatus>,
        rescaled: bool,
    ) -> HorizontalPodAutoscalerStatus {
        let old = hpa.status.clone().unwrap_or_default();
        HorizontalPodAutoscalerStatus {
            current_replicas: scale.map_or(old.current_replicas, |scale| Some(scale.there)),
            desired_replicas: desired,
            current_metrics: (!metrics.is_empty()).then_some(metrics),
            last_scale_time: match rescaled {
                true => Some(Time(self.now)),
                false => old.last_scale_time,
            },
            observed_generation: hpa.metadata.generation,
            conditions: Some(self.all),
        }
    }
}

/// Decides; remembers what was recommended.
pub fn decide(
    hpa: &HorizontalPodAutoscaler,
    scale: Scale,
    proposals: &[Result<Proposal, Fault>],
    memory: &mut Memory,
    conditions: &mut Conditions,
) -> Decision {
    let (min, max) = (hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas);
    let (current, now) = (scale.wanted, conditions.now);
    memory.begin(current, now);
    let stays = |fault| Decision {
        desired: current,
        reason: String::new(),
        fault,
    };
    let to = |desired, reason: &str| Decision {
        desired,
        reason: reason.to_owned(),
        fault: None,
    };
    if current == 0 && min != 0 {
        let why = "scaling is disabled since the replica count of the target is zero";
        conditions.set("ScalingActive", false, "ScalingDisabled", why);
        return stays(None);
    }
    if current > max {
        return to(max, "Current number of replicas above Spec.MaxReplicas");
    }
    if current < min {
        return to(min, "Current number of replicas below Spec.MinReplicas");
    }
    let (wanted, metric) = match highest(current, proposals) {
        Ok(highest) => highest,
        Err(fault) => {
            let message = format!(
                "the HPA was unable to compute the replica count: {}",
                fault.message
            );
            conditions.set("ScalingActive", false, fault.reason, message);
            return stays(Some(fault));
        }
    };
    let message =
        format!("the HPA was able to successfully calculate a replica count from {metric}");
    conditions.set("ScalingActive", true, "ValidMetricFound", message);
    let rates = Rates::of(hpa.spec.behavior.as_ref());
    let held = rates.stabilize(memory, current, wanted, now);
    let (reason, message) = match held.cmp(&wanted) {
        std::cmp::Ordering::Greater => (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        ),
        std::cmp::Ordering::Less => (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        ),
        std::cmp::Ordering::Equal => ("ReadyForNewScale", "recommended size matches current size"),
    };
    conditions.set("AbleToScale", true, reason, message);
    let bounded = rates.bound(memory, current, held, (min, max), now);
    match bounded.limit {
        Some((reason, message)) => conditions.set("ScalingLimited", true, reason, message),
        None => conditions.set(
            "ScalingLimited",
            false,
            "DesiredWithinRange",
            "the desired count is within the acceptable range",
        ),
    }
    match bounded.replicas > current {
        true => to(bounded.replicas, &format!("{metric} above target")),
        false => to(bounded.replicas, "All metrics below target"),
    }
}

/// The most that a metric asks for. When one could not be read, nothing is taken away: it might
/// have asked for more.
fn highest(current: i32, proposals: &[Result<Proposal, Fault>]) -> Result<(i32, String), Fault> {
    let valid = proposals
        .iter()
        .filter_map(|proposal| proposal.as_ref().ok());
    let most = valid.reduce(|most, next| {
        if next.replicas > most.replicas {
            next
        } else {
            most
        }
    });
    let first = proposals
        .iter()
        .find_map(|proposal| proposal.as_ref().err());
    match (most, first) {
        (Some(most), fault) if fault.is_none() || most.replicas >= current => {
            Ok((most.replicas, most.metric.clone()))
        }
        (_, Some(fault)) => {
            let invalid = proposals
                .iter()
                .filter(|proposal| proposal.is_err())
                .count();
            let total = proposals.len();
            let first = &fault.message;
            let message = format!(
                "invalid metrics ({invalid} invalid out of {total}), first error is: {first}"
            );
            Err(Fault {
                reason: fault.reason,
                message,
            })
        }
        (_, None) => Err(Fault {
            reason: "InvalidMetricSourceType",
            message: "the object names no metric".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hpa(min: i32, max: i32) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "minReplicas": min, "maxReplicas": max,
            },
        }))
        .unwrap()
    }

    fn asks(replicas: i32) -> Result<Proposal, Fault> {
        Ok(Proposal {
            replicas,
            metric: "cpu".to_owned(),
            status: MetricStatus::default(),
        })
    }

    fn fails() -> Result<Proposal, Fault> {
        Err(Fault {
            reason: "FailedGetResourceMetric",
            message: "no answer".to_owned(),
        })
    }

    /// The decision, and the conditions as `type=status reason`.
    fn run(wanted: i32, proposals: &[Result<Proposal, Fault>]) -> (Decision, Vec<String>) {
        let hpa = hpa(2, 6);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut conditions = Conditions::of(&hpa, now);
        let scale = Scale {
            wanted,
            there: wanted,
        };
        let decision = decide(
            &hpa,
            scale,
            proposals,
            &mut Memory::default(),
            &mut conditions,
        );
        let show = |one: &HorizontalPodAutoscalerCondition| {
            format!(
                "{}={} {}",
                one.type_,
                one.status,
                one.reason.as_deref().unwrap()
            )
        };
        (decision, conditions.all.iter().map(show).collect())
    }

    #[test]
    fn the_metric_that_asks_for_most_wins() {
        let (decision, conditions) = run(3, &[asks(2), asks(5), asks(4)]);
        assert_eq!(
            (decision.desired, decision.reason.as_str()),
            (5, "cpu above target")
        );
        assert_eq!(
            conditions,
            [
                "ScalingActive=True ValidMetricFound",
                "AbleToScale=True ReadyForNewScale",
                "ScalingLimited=False DesiredWithinRange",
            ]
        );
    }

    #[test]
    fn a_descent_waits_and_bounds_hold() {
        let (decision, conditions) = run(3, &[asks(1)]);
        assert_eq!(decision.desired, 3);
        assert_eq!(conditions[1], "AbleToScale=True ScaleDownStabilized");
        let (decision, conditions) = run(5, &[asks(9)]);
        assert_eq!(decision.desired, 6);
        assert_eq!(conditions[2], "ScalingLimited=True TooManyReplicas");
        assert_eq!(run(9, &[asks(9)]).0.desired, 6, "above the maximum");
        assert_eq!(run(1, &[asks(1)]).0.desired, 2, "below the minimum");
    }

    #[test]
    fn what_cannot_be_read_takes_nothing_away() {
        assert_eq!(run(3, &[fails(), asks(5)]).0.desired, 5, "it may still add");
        let (decision, conditions) = run(3, &[fails(), asks(2)]);
        assert_eq!(decision.desired, 3);
        assert!(
            decision
                .fault
                .unwrap()
                .message
                .contains("1 invalid out of 2")
        );
        assert_eq!(conditions, ["ScalingActive=False FailedGetResourceMetric"]);
    }

    #[test]
    fn a_target_of_zero_is_switched_off() {
        let (decision, conditions) = run(0, &[asks(5)]);
        assert_eq!(decision.desired, 0);
        assert_eq!(conditions, ["ScalingActive=False ScalingDisabled"]);
    }
}
