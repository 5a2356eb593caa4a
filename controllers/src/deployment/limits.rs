//! The arithmetic of a rollout: how many more, how many fewer.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision;
use crate::common::portion::{self, Round};

/// Default of `maxSurge` and `maxUnavailable`.
const QUARTER: &str = "25%";

/// How far a rollout may stray from the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Replicas asked for.
    pub replicas: i32,
    /// Pods above it that may exist.
    pub surge: i32,
    /// Pods below it that may be unavailable.
    pub unavailable: i32,
}

/// `spec.replicas`, one when it is not set.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// Whether old pods go before new ones come.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

impl Limits {
    /// The limits of a Deployment. Percentages of the replicas are rounded up for surge and
    /// down for unavailable; when both come to nothing one pod may be unavailable, or a rollout
    /// could never move.
    pub fn of(deployment: &Deployment) -> Self {
        let replicas = replicas(deployment);
        if is_recreate(deployment) {
            return Self {
                replicas,
                surge: 0,
                unavailable: 0,
            };
        }
        let strategy = deployment.spec.strategy.as_ref();
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String(QUARTER.to_owned());
        let surge = rolling
            .and_then(|r| r.max_surge.as_ref())
            .unwrap_or(&quarter);
        let unavailable = rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&quarter);
        let surge = portion::of(surge, replicas, Round::Up);
        let mut unavailable = portion::of(unavailable, replicas, Round::Down);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
        }
    }

    /// The most pods that may exist.
    pub fn ceiling(self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest pods that must be available.
    pub fn floor(self) -> i32 {
        self.replicas - self.unavailable
    }

    /// The size of the new ReplicaSet, of `size` now, when all have `total` pods.
    pub fn grown(self, size: i32, total: i32) -> i32 {
        let room = (self.ceiling() - total).max(0);
        size + room.min((self.replicas - size).max(0))
    }
}

/// The number of pods a ReplicaSet is asked to have.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The number of pods several ReplicaSets are asked to have.
pub fn total<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(size).sum()
}

/// The number of available pods of several ReplicaSets.
pub fn available<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    let of = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.available_replicas)
    };
    sets.into_iter().map(|set| of(set).unwrap_or(0)).sum()
}

/// New sizes of the active ReplicaSets when a Deployment is scaled in the middle of a rollout:
/// each in proportion to its share, so that the risk stays spread as it was. `sets` come
/// largest first; what rounding leaves over goes to the first.
pub fn proportional(sets: &[&ReplicaSet], limits: Limits, status_replicas: i32) -> Vec<i32> {
    let allowed = if limits.replicas > 0 {
        limits.ceiling()
    } else {
        0
    };
    let to_add = allowed - total(sets.iter().copied());
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in sets {
        let share = share(set, limits, status_replicas, to_add, added);
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn share(set: &ReplicaSet, limits: Limits, status_replicas: i32, to_add: i32, added: i32) -> i32 {
    let now = size(set);
    if now == 0 || to_add == added {
        return 0;
    }
    if limits.replicas == 0 {
        return -now;
    }
    let before = match revision::max_replicas(set) {
        Some(max) if max > 0 => max,
        _ => status_replicas.max(1),
    };
    let scaled = f64::from(now) * f64::from(limits.ceiling()) / f64::from(before);
    // Both factors are i32, so that the quotient fits after the saturating cast.
    let change = scaled.round() as i32 - now;
    match to_add > 0 {
        true => change.min(to_add - added),
        false => change.max(to_add - added),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::simulation::deployment;

    #[test]
    fn rounding_as_upstream() {
        for (replicas, surge, unavailable, expected) in [
            (10, "25%", "25%", (3, 2)),
            (3, "1", "0", (1, 0)),
            (1, "25%", "25%", (1, 0)),
            (1, "0", "0", (0, 1)),
            (0, "25%", "25%", (0, 0)),
            (3, "0%", "10%", (0, 1)),
            (2, "100%", "5", (2, 2)),
        ] {
            let limits = Limits::of(&deployment(replicas, surge, unavailable));
            let got = (limits.surge, limits.unavailable);
            assert_eq!(got, expected, "{replicas} {surge} {unavailable}");
        }
    }

    #[test]
    fn growth_stops_at_the_ceiling_and_at_the_goal() {
        let limits = Limits::of(&deployment(10, "3", "2"));
        for (size, total, expected) in [(0, 10, 3), (3, 13, 3), (9, 10, 10), (0, 0, 10)] {
            assert_eq!(limits.grown(size, total), expected, "{size} of {total}");
        }
    }
}
