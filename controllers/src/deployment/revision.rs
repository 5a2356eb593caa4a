//! Revisions: which ReplicaSet is the new one, its number, its annotations, which old ones go.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::limits::{self, Limits};
use super::template;

/// Annotation: the number of a rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation: the earlier numbers of a ReplicaSet that was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation: the Deployment's replicas when the ReplicaSet was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation: the Deployment's replicas and surge when the ReplicaSet was last sized.
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const PRIVATE: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// The longest history annotation, in bytes; the oldest numbers are dropped.
const HISTORY_MAX: usize = 2000;

fn number(annotations: Option<&BTreeMap<String, String>>, name: &str) -> Option<i64> {
    annotations?.get(name)?.parse().ok()
}

/// The revision of a ReplicaSet, 0 when it has none.
pub fn of(set: &ReplicaSet) -> i64 {
    number(set.metadata.annotations.as_ref(), REVISION).unwrap_or(0)
}

/// The Deployment's replicas when this ReplicaSet was last sized.
pub fn desired_replicas(set: &ReplicaSet) -> Option<i32> {
    let number = number(set.metadata.annotations.as_ref(), DESIRED)?;
    i32::try_from(number).ok()
}

/// The Deployment's ceiling when this ReplicaSet was last sized.
pub fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    let number = number(set.metadata.annotations.as_ref(), MAX)?;
    i32::try_from(number).ok()
}

/// The ReplicaSet of the Deployment's current template: of several the oldest. `sets` come
/// oldest first.
pub fn find_new<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a str> {
    let wanted = &deployment.spec.template;
    let new = sets.iter().find(|set| {
        let template = set.spec.template.as_ref();
        template.is_some_and(|template| template::same(template, wanted))
    })?;
    new.metadata.name.as_deref()
}

/// Writes the size that the Deployment has now onto a ReplicaSet.
pub fn note_size(set: &mut ReplicaSet, limits: Limits) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), limits.replicas.to_string());
    annotations.insert(MAX.to_owned(), limits.ceiling().to_string());
}

/// Gives the new ReplicaSet its Deployment's annotations and a revision, if its own is lower.
pub fn annotate_new(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) {
    let old = of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !PRIVATE.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    if old >= revision {
        return;
    }
    if old > 0 {
        let history = annotations.entry(HISTORY.to_owned()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&old.to_string());
        while history.len() > HISTORY_MAX
            && let Some(comma) = history.find(',')
        {
            history.drain(..=comma);
        }
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
}

/// The old ReplicaSets beyond `revisionHistoryLimit` that have nothing left to do, lowest
/// revision first.
pub fn beyond_history<'a>(
    deployment: &Deployment,
    old: impl Iterator<Item = &'a Arc<ReplicaSet>>,
) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.revision_history_limit.unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut alive: Vec<_> = old
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    alive.sort_by_key(|set| of(set));
    let surplus = alive
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    let idle = |set: &&&Arc<ReplicaSet>| {
        let status = set.status.as_ref();
        let observed = status
            .and_then(|status| status.observed_generation)
            .unwrap_or(0);
        limits::size(set) == 0
            && status.is_none_or(|status| status.replicas == 0)
            && set.metadata.generation.unwrap_or(0) <= observed
    };
    let surplus = alive.iter().take(surplus).filter(idle);
    surplus.map(|set| Arc::clone(set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::simulation::deployment;

    #[test]
    fn a_rollback_keeps_the_earlier_numbers() {
        let (mut set, deployment) = (ReplicaSet::default(), deployment(1, "1", "0"));
        for (revision, number, history) in [(1, 1, None), (3, 3, Some("1")), (7, 7, Some("1,3"))] {
            annotate_new(&mut set, &deployment, revision);
            assert_eq!(of(&set), number);
            let annotations = set.metadata.annotations.as_ref().unwrap();
            assert_eq!(annotations.get(HISTORY).map(String::as_str), history);
        }
        annotate_new(&mut set, &deployment, 2);
        assert_eq!(of(&set), 7, "a revision never falls");
    }

    #[test]
    fn the_history_is_bounded() {
        let (mut set, deployment) = (ReplicaSet::default(), deployment(1, "1", "0"));
        for revision in 1..2000 {
            annotate_new(&mut set, &deployment, revision);
        }
        let annotations = set.metadata.annotations.unwrap();
        assert!(annotations[HISTORY].len() <= HISTORY_MAX);
        assert!(annotations[HISTORY].ends_with("1997,1998"));
    }
}
