//! What a DaemonSet does next. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ObjectMeta;

use super::placement::{self, Verdict};
use crate::common::history::{self, REVISION_HASH};
use crate::common::portion::{self, Round};
use crate::common::{owner, pods};

/// The most pods created or deleted in one go, as upstream's `burstReplicas`.
const BURST: usize = 250;

/// What a DaemonSet is seen to be.
pub struct Observed<'a> {
    /// The DaemonSet.
    pub set: &'a DaemonSet,
    /// The pods that it controls.
    pub pods: &'a [Arc<Pod>],
    /// The nodes.
    pub nodes: &'a [Arc<Node>],
    /// The hash of the present template's revision.
    pub hash: &'a str,
    /// How often a hash was taken.
    pub collisions: i32,
    /// Whether the cache shows all that was written; else nothing is done.
    pub settled: bool,
}

/// What to do, the status, and when to look again without any change.
#[derive(Default)]
pub struct Plan {
    /// Nodes to create a pod for.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that ended of themselves, to be deleted too, each with its node: they are made again
    /// ever more slowly.
    pub ended: Vec<(String, Arc<Pod>)>,
    /// The status.
    pub status: DaemonSetStatus,
    /// A pod becomes available by the mere passing of time.
    pub wake: Option<Duration>,
}

/// Decides.
pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let places = places(seen);
    let mut plan = Plan {
        status: status(seen, &places, now),
        ..Plan::default()
    };
    let min_ready = seen.set.spec.min_ready_seconds.unwrap_or(0);
    let waits = seen
        .pods
        .iter()
        .filter_map(|pod| pods::available_in(pod, min_ready, now));
    plan.wake = waits.min();
    if !seen.settled || seen.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    manage(seen, &places, &mut plan);
    if is_rolling(seen.set) {
        roll(seen, &places, now, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

/// A node, or what is left of one, and the set's pods for it.
struct Place<'a> {
    name: &'a str,
    verdict: Verdict,
    pods: Vec<&'a Arc<Pod>>,
}

fn places<'a>(seen: &'a Observed<'a>) -> Vec<Place<'a>> {
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in seen.pods {
        if let Some(node) = placement::node_of(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let spec = seen.set.spec.template.spec.clone().unwrap_or_default();
    let mut places: Vec<Place<'_>> = seen
        .nodes
        .iter()
        .map(|node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            Place {
                name,
                verdict: placement::judge(&spec, node),
                pods: by_node.remove(name).unwrap_or_default(),
            }
        })
        .collect();
    // Pods of nodes that are gone.
    places.extend(by_node.into_iter().map(|(name, pods)| Place {
        name,
        verdict: Verdict {
            runs: false,
            keeps: false,
        },
        pods,
    }));
    for place in &mut places {
        place.pods.sort_by_key(|pod| age_order(pod));
    }
    places
}

/// Bound pods before waiting ones, then the oldest first.
fn age_order(pod: &Pod) -> (bool, Option<Timestamp>, String) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let name = pod.metadata.name.clone().unwrap_or_default();
    (pods::node_name(pod).is_empty(), created, name)
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// One pod on each node that should have one, none elsewhere.
fn manage(seen: &Observed<'_>, places: &[Place<'_>], plan: &mut Plan) {
    for place in places {
        let present = place.pods.iter().filter(|pod| !pods::is_terminating(pod));
        if !place.verdict.keeps {
            plan.delete.extend(present.map(|pod| (*pod).clone()));
            continue;
        }
        let (ended, alive): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            present.copied().partition(|pod| pods::is_finished(pod));
        let endings = ended
            .iter()
            .map(|pod| (place.name.to_owned(), (*pod).clone()));
        plan.ended.extend(endings);
        if alive.is_empty() && ended.is_empty() && place.pods.is_empty() && place.verdict.runs {
            plan.create.push(place.name.to_owned());
        }
        plan.delete.extend(too_many(seen, &alive));
    }
}

/// Of the pods of one node all but the oldest; while surging, the oldest of either template as
/// long as the older serves.
fn too_many(seen: &Observed<'_>, alive: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut rest = alive.to_vec();
    if rest.len() < 2 {
        return Vec::new();
    }
    let mut kept = vec![rest.remove(0)];
    if limits(seen).surge > 0 {
        let is_new = |pod: &Arc<Pod>| history::carried_by(pod) == Some(seen.hash);
        let other = rest.iter().position(|pod| is_new(pod) != is_new(kept[0]));
        if let Some(index) = other {
            kept.push(rest.remove(index));
            let serves = |pod: &Arc<Pod>| is_new(pod) || pods::is_ready(pod);
            rest.extend(kept.iter().filter(|pod| !serves(pod)));
        }
    }
    rest.into_iter().cloned().collect()
}

/// How far an update may go.
struct Limits {
    unavailable: i32,
    surge: i32,
}

fn limits(seen: &Observed<'_>) -> Limits {
    let strategy = seen.set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let spec = seen.set.spec.template.spec.clone().unwrap_or_default();
    let wanted = seen
        .nodes
        .iter()
        .filter(|node| placement::judge(&spec, node).runs)
        .count();
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    let of = |bound| portion::of(bound, wanted, Round::Up);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let surge = surge.map_or(0, of);
    match unavailable.map_or(1, of) {
        // Something must be able to move.
        0 if surge == 0 => Limits {
            unavailable: 1,
            surge,
        },
        unavailable => Limits { unavailable, surge },
    }
}

/// Replaces pods of older templates.
fn roll(seen: &Observed<'_>, places: &[Place<'_>], now: Timestamp, plan: &mut Plan) {
    let limits = limits(seen);
    let min_ready = seen.set.spec.min_ready_seconds.unwrap_or(0);
    let is_available = |pod: &Arc<Pod>| pods::is_available(pod, min_ready, now);
    let is_new = |pod: &&&Arc<Pod>| history::carried_by(pod) == Some(seen.hash);
    let (mut moving, mut at_once, mut later) = (0, Vec::new(), Vec::new());
    for place in places.iter().filter(|place| place.verdict.keeps) {
        let mut alive = place.pods.iter().filter(|pod| pods::is_active(pod));
        let new = alive.clone().find(is_new);
        let old = alive.find(|pod| !is_new(pod));
        match (old, new, limits.surge > 0) {
            (None, None, false) if place.verdict.runs => moving += 1,
            (None, Some(new), false) => moving += i32::from(!is_available(new)),
            (Some(_), Some(_), false) => moving += 1,
            (Some(old), None, _) => match is_available(old) {
                true => later.push((place.name, *old)),
                false => {
                    moving += i32::from(limits.surge == 0);
                    at_once.push((place.name, *old));
                }
            },
            (Some(old), Some(new), true) => match is_available(new) {
                true => plan.delete.push((*old).clone()),
                false => moving += 1,
            },
            (None, _, _) => {}
        }
    }
    let most = if limits.surge > 0 {
        limits.surge
    } else {
        limits.unavailable
    };
    let free = usize::try_from(most - moving).unwrap_or(0);
    let chosen = at_once.into_iter().chain(later.into_iter().take(free));
    for (node, old) in chosen {
        match limits.surge > 0 {
            true => plan.create.push(node.to_owned()),
            false if plan.delete.contains(old) => {}
            false => plan.delete.push(old.clone()),
        }
    }
}

/// The pod for a node.
pub fn new_pod(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let template = set.spec.template.clone();
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    Pod {
        metadata: ObjectMeta {
            namespace: set.metadata.namespace.clone(),
            generate_name: Some(format!("{name}-")),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template
            .spec
            .map(|spec| placement::specification(&spec, node)),
        status: None,
    }
}

fn status(seen: &Observed<'_>, places: &[Place<'_>], now: Timestamp) -> DaemonSetStatus {
    let min_ready = seen.set.spec.min_ready_seconds.unwrap_or(0);
    let mut new = DaemonSetStatus {
        collision_count: (seen.collisions != 0).then_some(seen.collisions),
        conditions: seen
            .set
            .status
            .as_ref()
            .and_then(|old| old.conditions.clone()),
        observed_generation: seen.set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for place in places {
        // The oldest speaks for the node.
        let first = place.pods.first();
        if !place.verdict.runs {
            let present = !place.pods.is_empty();
            new.number_misscheduled += i32::from(present && !is_gone(seen, place));
            continue;
        }
        new.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        new.current_number_scheduled += 1;
        if pods::is_ready(pod) {
            new.number_ready += 1;
            available += i32::from(pods::is_available(pod, min_ready, now));
        }
        updated += i32::from(history::carried_by(pod) == Some(seen.hash));
    }
    let unavailable = new.desired_number_scheduled - available;
    // Upstream leaves zeros out.
    let some = |count: i32| (count != 0).then_some(count);
    new.updated_number_scheduled = some(updated);
    new.number_available = some(available);
    new.number_unavailable = some(unavailable);
    new
}

fn is_gone(seen: &Observed<'_>, place: &Place<'_>) -> bool {
    let mut nodes = seen.nodes.iter();
    !nodes.any(|node| node.metadata.name.as_deref() == Some(place.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    /// Reads a DaemonSet, nodes and pods; the present template's hash is `new`.
    fn run(input: &str) -> String {
        let now = now(input);
        let sets: Vec<DaemonSet> = objects(input, "DaemonSet");
        let nodes: Vec<_> = objects::<Node>(input, "Node")
            .into_iter()
            .map(Arc::new)
            .collect();
        let pods: Vec<_> = objects::<Pod>(input, "Pod")
            .into_iter()
            .map(Arc::new)
            .collect();
        let seen = Observed {
            set: &sets[0],
            pods: &pods,
            nodes: &nodes,
            hash: "new",
            collisions: 0,
            settled: true,
        };
        let plan = plan(&seen, now);
        let name = |pod: &Arc<Pod>| pod.metadata.name.clone().unwrap();
        let mut lines: Vec<String> = Vec::new();
        lines.extend(plan.create.iter().map(|node| format!("create for {node}")));
        lines.extend(
            plan.delete
                .iter()
                .map(|pod| format!("delete {}", name(pod))),
        );
        lines.extend(
            plan.ended
                .iter()
                .map(|(node, pod)| format!("ended on {node}: {}", name(pod))),
        );
        if lines.is_empty() {
            lines.push("keep".to_owned());
        }
        lines.extend(plan.wake.map(|wait| format!("again in {wait:?}")));
        lines.push(serde_json::to_string(&plan.status).unwrap());
        lines.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("daemonset", run);
    }
}
