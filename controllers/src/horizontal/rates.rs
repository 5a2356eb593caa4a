//! How fast an autoscaler may move: recommendations are held over a window, and policies bound
//! what changes in a period. Pure.
//! <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#configurable-scaling-behavior>

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior,
};

use super::replicas::{Tolerance, amount};

/// For so long what was recommended holds a descent, unless the object says otherwise.
const DOWN_WINDOW_S: i32 = 300;
/// The longest window and period that the API takes.
const MEMORY: SignedDuration = SignedDuration::from_hours(1);
/// How far from the target nothing is done, unless the object says otherwise.
const TOLERANCE: f64 = 0.1;

/// What an autoscaler did lately. It is kept by the process: after a restart it begins with the
/// replicas that there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    /// Changes of the number of replicas.
    changes: Vec<(Timestamp, i32)>,
}

/// How fast it may move.
#[derive(Clone, Debug)]
pub struct Rates {
    up: Rules,
    down: Rules,
}

#[derive(Clone, Debug)]
struct Rules {
    window: SignedDuration,
    select: Select,
    policies: Vec<HPAScalingPolicy>,
    tolerance: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Select {
    Max,
    Min,
    Disabled,
}

/// A number of replicas and what bounded it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    /// Replicas.
    pub replicas: i32,
    /// Reason and sentence of the condition `ScalingLimited`; `None` when nothing bounds it.
    pub limit: Option<(&'static str, &'static str)>,
}

// === impl Memory ===

impl Memory {
    /// The first look at an autoscaler: what there is, is what was recommended.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// The number of replicas was changed.
    pub fn changed(&mut self, by: i32, now: Timestamp) {
        self.changes.push((now, by));
        self.changes.retain(|(at, _)| *at + MEMORY > now);
    }

    /// What was added less what was taken away since `period` ago.
    fn moved(&self, period: i32, now: Timestamp) -> i32 {
        let since = now - SignedDuration::from_secs(i64::from(period));
        let recent = self.changes.iter().filter(|(at, _)| *at > since);
        recent.map(|(_, by)| *by).sum()
    }
}

// === impl Rates ===

impl Rates {
    /// The behavior of an object; where it is silent, upstream's: upwards to the double or by four
    /// pods every 15 seconds, downwards at once after five minutes.
    pub fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let policy = |kind: &str, value| HPAScalingPolicy {
            type_: kind.to_owned(),
            value,
            period_seconds: 15,
        };
        let up = vec![policy("Percent", 100), policy("Pods", 4)];
        let down = vec![policy("Percent", 100)];
        let rules =
            |of: fn(&HorizontalPodAutoscalerBehavior) -> Option<&HPAScalingRules>,
             window,
             otherwise| { Rules::of(behavior.and_then(of), window, otherwise) };
        Self {
            up: rules(|behavior| behavior.scale_up.as_ref(), 0, up),
            down: rules(|behavior| behavior.scale_down.as_ref(), DOWN_WINDOW_S, down),
        }
    }

    /// How far from a target nothing is done.
    pub fn tolerance(&self) -> Tolerance {
        Tolerance {
            down: self.down.tolerance,
            up: self.up.tolerance,
        }
    }

    /// A recommendation held against those of the windows, and remembered.
    pub fn stabilize(&self, memory: &mut Memory, current: i32, wanted: i32, now: Timestamp) -> i32 {
        let within = |window| {
            let since = now - window;
            let all = memory.recommendations.iter();
            all.filter(move |(at, _)| *at > since)
                .map(|(_, replicas)| *replicas)
        };
        let up = within(self.up.window).fold(wanted, i32::min);
        let down = within(self.down.window).fold(wanted, i32::max);
        let held = current.max(up).min(down);
        memory.recommendations.push((now, wanted));
        memory.recommendations.retain(|(at, _)| *at + MEMORY > now);
        held
    }

    /// A number of replicas within what the policies and the bounds of the object allow.
    pub fn bound(
        &self,
        memory: &Memory,
        current: i32,
        wanted: i32,
        (min, max): (i32, i32),
        now: Timestamp,
    ) -> Bounded {
        if wanted > current {
            let limit = self.up.most(memory, current, now).max(current);
            let (most, why) = match max > limit {
                true => (limit, FASTER_UP),
                false => (max, TOO_MANY),
            };
            return Bounded {
                replicas: wanted.min(most),
                limit: (wanted > most).then_some(why),
            };
        }
        if wanted < current {
            let limit = self.down.least(memory, current, now).min(current);
            let (least, why) = match min < limit {
                true => (limit, FASTER_DOWN),
                false => (min, TOO_FEW),
            };
            return Bounded {
                replicas: wanted.max(least),
                limit: (wanted < least).then_some(why),
            };
        }
        Bounded {
            replicas: wanted,
            limit: None,
        }
    }
}

const FASTER_UP: (&str, &str) = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const FASTER_DOWN: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: (&str, &str) = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: (&str, &str) = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);

// === impl Rules ===

impl Rules {
    fn of(rules: Option<&HPAScalingRules>, window: i32, otherwise: Vec<HPAScalingPolicy>) -> Self {
        let window = rules
            .and_then(|rules| rules.stabilization_window_seconds)
            .unwrap_or(window);
        let select = match rules.and_then(|rules| rules.select_policy.as_deref()) {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        };
        let policies = rules.and_then(|rules| rules.policies.clone());
        let tolerance = rules.and_then(|rules| amount(rules.tolerance.as_ref()?));
        Self {
            window: SignedDuration::from_secs(i64::from(window)),
            select,
            policies: policies.filter(|all| !all.is_empty()).unwrap_or(otherwise),
            tolerance: tolerance.map_or(TOLERANCE, |milli| milli as f64 / 1000.0),
        }
    }

    /// The most replicas that the policies allow.
    fn most(&self, memory: &Memory, current: i32, now: Timestamp) -> i32 {
        let limits = self.policies.iter().map(|policy| {
            let before = current.saturating_sub(memory.moved(policy.period_seconds, now));
            match policy.type_.as_str() {
                "Pods" => before.saturating_add(policy.value),
                _ => percent(before, 100 + i64::from(policy.value), f64::ceil),
            }
        });
        match self.select {
            Select::Max => limits.max().unwrap_or(current),
            Select::Min => limits.min().unwrap_or(current),
            Select::Disabled => current,
        }
    }

    /// The fewest.
    fn least(&self, memory: &Memory, current: i32, now: Timestamp) -> i32 {
        let limits = self.policies.iter().map(|policy| {
            let before = current.saturating_sub(memory.moved(policy.period_seconds, now));
            match policy.type_.as_str() {
                "Pods" => before.saturating_sub(policy.value),
                _ => percent(before, 100 - i64::from(policy.value), f64::trunc),
            }
        });
        // The policy that changes most is the one that leaves the fewest.
        match self.select {
            Select::Max => limits.min().unwrap_or(current),
            Select::Min => limits.max().unwrap_or(current),
            Select::Disabled => current,
        }
    }
}

fn percent(of: i32, percent: i64, round: fn(f64) -> f64) -> i32 {
    // Saturates.
    round(f64::from(of) * percent as f64 / 100.0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn rates(behavior: Value) -> Rates {
        let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(behavior).unwrap();
        Rates::of(Some(&behavior))
    }

    /// Wishes at given seconds, and the replicas that come of them.
    fn course(rates: &Rates, mut current: i32, wishes: &[(i64, i32)]) -> Vec<i32> {
        let mut memory = Memory::default();
        memory.begin(current, at(0));
        let mut course = Vec::new();
        for &(second, wish) in wishes {
            let held = rates.stabilize(&mut memory, current, wish, at(second));
            let next = rates
                .bound(&memory, current, held, (1, 100), at(second))
                .replicas;
            if next != current {
                memory.changed(next - current, at(second));
            }
            current = next;
            course.push(current);
        }
        course
    }

    #[test]
    fn upwards_by_doubling_and_downwards_after_five_minutes() {
        let rates = Rates::of(None);
        let up = course(&rates, 1, &[(0, 50), (15, 50), (30, 50), (45, 50)]);
        assert_eq!(up, [5, 10, 20, 40]);
        let down = course(
            &rates,
            10,
            &[(15, 2), (200, 2), (299, 3), (301, 2), (600, 2)],
        );
        assert_eq!(down, [10, 10, 10, 3, 2], "the highest wish of the window");
    }

    #[test]
    fn policies_count_what_was_done_in_their_period() {
        let rates = rates(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": 60},
            ]},
        }));
        assert_eq!(course(&rates, 4, &[(0, 9), (30, 9), (61, 9)]), [6, 6, 8]);
        assert_eq!(course(&rates, 8, &[(0, 1), (30, 1), (61, 1)]), [4, 4, 2]);
    }

    #[test]
    fn a_direction_can_be_forbidden() {
        let rates = rates(json!({"scaleDown": {"selectPolicy": "Disabled"}}));
        assert_eq!(course(&rates, 8, &[(400, 1), (800, 1)]), [8, 8]);
        let memory = Memory::default();
        let bounded = rates.bound(&memory, 8, 1, (1, 10), at(0));
        assert_eq!(bounded.limit.unwrap().0, "ScaleDownLimit");
    }

    #[test]
    fn the_bounds_of_the_object_hold() {
        let (rates, memory) = (Rates::of(None), Memory::default());
        let up = rates.bound(&memory, 4, 9, (1, 6), at(0));
        assert_eq!((up.replicas, up.limit.unwrap().0), (6, "TooManyReplicas"));
        let down = rates.bound(&memory, 4, 1, (2, 6), at(0));
        assert_eq!(
            (down.replicas, down.limit.unwrap().0),
            (2, "TooFewReplicas")
        );
        assert_eq!(rates.bound(&memory, 4, 5, (1, 6), at(0)).limit, None);
    }
}
