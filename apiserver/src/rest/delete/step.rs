//! What a deletion does to an object: nothing, mark it, or remove it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use peapod_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use serde_json::Value;

use super::options::{DeleteOptions, Propagation};
use crate::registry::{Resource, object_meta, value};

/// What a deletion does to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: it is being deleted already.
    Pending,
    /// It is marked, and goes later.
    Mark(Value),
    /// It goes now.
    Remove(Value),
}

/// The decision about a deletion.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is done.
    pub step: Step,
    /// What the client is told of it.
    pub warning: Option<&'static str>,
}

/// Decides what a deletion does to an object.
pub fn decide(
    resource: &Resource,
    old: &Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Decision {
    let mut new = old.clone();
    let mut warning = None;
    if let Some(propagation) = options.propagation {
        propagate(&mut new, propagation);
    } else if let Some(told) = orphans(resource, old) {
        propagate(&mut new, Propagation::Orphan);
        warning = Some(told).filter(|told| !told.is_empty());
    }
    let step = step(resource, old, new, options, now);
    Decision { step, warning }
}

/// What is done to an object whose finalizers are settled in `new`.
fn step(
    resource: &Resource,
    old: &Value,
    mut new: Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Step {
    let rules = &resource.kind.rules;
    let grace = match deletion_of(old) {
        // Only a shorter grace period may follow the first; one that is not known ends it.
        Some(None) => 0,
        Some(Some(left)) => match options.grace_period_seconds {
            Some(asked) if asked < left => {
                shorten(&mut new, old, left, asked);
                asked
            }
            _ if is_due(resource, &new) => 0,
            _ => return pending(new, old),
        },
        None => {
            let grace = rules
                .grace_period(old, options.grace_period_seconds)
                .unwrap_or(0);
            mark(&mut new, grace, now);
            rules.mark_deleting(&mut new);
            grace
        }
    };
    match grace == 0 && !rules.is_held(&new) && !has_finalizers(&new) {
        true => Step::Remove(new),
        false if new == *old => Step::Pending,
        false => Step::Mark(new),
    }
}

fn pending(new: Value, old: &Value) -> Step {
    match new == *old {
        true => Step::Pending,
        false => Step::Mark(new),
    }
}

/// The warning of a kind that leaves what it owns when nobody says what becomes of it, where this
/// deletion is one of those.
fn orphans(resource: &Resource, old: &Value) -> Option<&'static str> {
    let warning = resource.kind.orphans?;
    let mut finalizers = value::list(old, "metadata.finalizers").iter();
    let settled = deletion_of(old).is_some() || finalizers.any(|one| one == FINALIZER_FOREGROUND);
    (!settled).then_some(warning)
}

/// The grace period of a deletion under way: `None` when there is no deletion, `Some(None)` when
/// its grace period is not recorded.
fn deletion_of(object: &Value) -> Option<Option<i64>> {
    value::at(object, "metadata.deletionTimestamp")?;
    Some(value::integer(
        object,
        "metadata.deletionGracePeriodSeconds",
    ))
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let at = now + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    value::set(object, "metadata.deletionTimestamp", object_meta::time(at));
    value::set(object, "metadata.deletionGracePeriodSeconds", grace);
    if let Some(generation) = value::integer(object, "metadata.generation") {
        value::set(object, "metadata.generation", generation + 1);
    }
}

fn shorten(new: &mut Value, old: &Value, left: i64, asked: i64) {
    let asked = asked.max(0);
    let due: Option<Timestamp> = value::text(old, "metadata.deletionTimestamp").parse().ok();
    if let Some(due) = due {
        let sooner = Duration::from_secs(u64::try_from(left - asked).unwrap_or(0));
        let at = object_meta::time(due - sooner);
        value::set(new, "metadata.deletionTimestamp", at);
    }
    value::set(new, "metadata.deletionGracePeriodSeconds", asked);
}

fn propagate(object: &mut Value, propagation: Propagation) {
    let mut finalizers = value::list(object, "metadata.finalizers").to_vec();
    finalizers.retain(|one| one != FINALIZER_ORPHAN && one != FINALIZER_FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FINALIZER_FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(FINALIZER_ORPHAN.into()),
    }
    let finalizers = (!finalizers.is_empty()).then_some(Value::Array(finalizers));
    value::set_or_remove(object, "metadata.finalizers", finalizers);
}

fn has_finalizers(object: &Value) -> bool {
    !value::list(object, "metadata.finalizers").is_empty()
}

/// Whether an object that is being deleted has nothing left to wait for.
pub fn is_due(resource: &Resource, object: &Value) -> bool {
    matches!(deletion_of(object), Some(None | Some(0)))
        && !has_finalizers(object)
        && !resource.kind.rules.is_held(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use serde_json::json;

    fn decide(old: Value, options: &DeleteOptions) -> Step {
        decide_of("", "pods", old, options)
    }

    fn decide_of(group: &str, plural: &str, old: Value, options: &DeleteOptions) -> Step {
        let registry = Registry::builtin().unwrap();
        let resource = registry.find(group, "v1", plural).unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        super::decide(&resource, &old, options, now).step
    }

    #[test]
    fn jobs_and_replication_controllers_leave_their_pods_unless_told_otherwise() {
        let [none, background] =
            [None, Some(Propagation::Background)].map(|propagation| DeleteOptions {
                propagation,
                ..Default::default()
            });
        for (group, plural) in [("batch", "jobs"), ("", "replicationcontrollers")] {
            let Step::Mark(marked) = decide_of(group, plural, json!({"spec": {}}), &none) else {
                panic!("expected a mark");
            };
            assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
            let told = decide_of(group, plural, json!({"spec": {}}), &background);
            assert!(matches!(told, Step::Remove(_)));
            let waiting = json!({"metadata": {"finalizers": ["foregroundDeletion"]}});
            let Step::Mark(marked) = decide_of(group, plural, waiting, &none) else {
                panic!("expected a mark");
            };
            assert_eq!(
                marked["metadata"]["finalizers"],
                json!(["foregroundDeletion"])
            );
        }
        let set = decide_of("apps", "replicasets", json!({"spec": {}}), &none);
        assert!(matches!(set, Step::Remove(_)));
    }

    #[test]
    fn who_leaves_pods_without_being_told_to_warns_of_it() {
        let registry = Registry::builtin().unwrap();
        let jobs = registry.find("batch", "v1", "jobs").unwrap();
        let none = DeleteOptions::default();
        let orphan = DeleteOptions {
            propagation: Some(Propagation::Orphan),
            ..none.clone()
        };
        let old = json!({"spec": {}});
        let warns = |old: &Value, options: &DeleteOptions| {
            let decision = super::decide(&jobs, old, options, Timestamp::UNIX_EPOCH);
            decision.warning.is_some()
        };
        assert!(warns(&old, &none));
        assert!(!warns(&old, &orphan));
        let again = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}});
        assert!(!warns(&again, &none));
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..Default::default()
        }
    }

    #[test]
    fn a_running_pod_gets_its_grace() {
        let pod = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}});
        let Step::Mark(marked) = decide(pod.clone(), &DeleteOptions::default()) else {
            panic!("expected a mark");
        };
        assert_eq!(
            marked["metadata"],
            json!({"deletionTimestamp": "2023-11-14T22:13:30Z", "deletionGracePeriodSeconds": 10})
        );
        assert_eq!(
            decide(marked.clone(), &DeleteOptions::default()),
            Step::Pending
        );
        assert_eq!(decide(marked.clone(), &grace(20)), Step::Pending);
        let Step::Mark(shorter) = decide(marked.clone(), &grace(4)) else {
            panic!("expected a shorter grace");
        };
        assert_eq!(
            shorter["metadata"]["deletionTimestamp"],
            "2023-11-14T22:13:24Z"
        );
        assert!(matches!(decide(marked, &grace(0)), Step::Remove(_)));
        assert!(matches!(decide(pod, &grace(0)), Step::Remove(_)));
    }

    #[test]
    fn a_pod_without_a_node_goes_at_once() {
        let pod = json!({"spec": {}});
        assert!(matches!(
            decide(pod, &DeleteOptions::default()),
            Step::Remove(_)
        ));
    }

    #[test]
    fn finalizers_hold() {
        let pod = json!({"metadata": {"finalizers": ["a/b"]}, "spec": {}});
        let Step::Mark(marked) = decide(pod, &DeleteOptions::default()) else {
            panic!("expected a mark");
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(decide(marked, &DeleteOptions::default()), Step::Pending);
    }

    #[test]
    fn propagation_is_a_finalizer() {
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..Default::default()
        };
        let Step::Mark(marked) = decide(json!({"spec": {}}), &foreground) else {
            panic!("expected a mark");
        };
        assert_eq!(
            marked["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        let background = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..Default::default()
        };
        assert!(matches!(decide(marked, &background), Step::Remove(_)));
    }
}
