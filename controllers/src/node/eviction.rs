//! Pods leave nodes whose `NoExecute` taints they do not tolerate, or not for ever.
//!
//! The core is [`leaves`]. The time counts from when the taint was added, so that a restart
//! changes nothing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::conditions;

use crate::common::{Key, pods};
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "taint-eviction-controller";
const NO_EXECUTE: &str = "NoExecute";

/// When a pod must leave a node with these taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may stay for ever.
    Never,
    /// At this time, which may have passed.
    At(Timestamp),
}

/// The taints that make pods leave.
fn evicting(taints: &[Taint]) -> impl Iterator<Item = &Taint> {
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE)
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => key == taint.key && toleration.value.as_deref().unwrap_or("") == text(&taint.value),
    }
}

/// When a pod with these tolerations leaves: at once by a taint that none of them covers, else
/// after the shortest time that one of those used gives. `scheduled` stands in for a taint
/// without a time.
pub fn leaves(tolerations: &[Toleration], taints: &[Taint], scheduled: Timestamp) -> Leave {
    let mut soonest = Leave::Never;
    for taint in evicting(taints) {
        let added = taint.time_added.as_ref().map_or(scheduled, |time| time.0);
        let mut used = tolerations
            .iter()
            .filter(|t| tolerates(t, taint))
            .peekable();
        let leave = match used.peek() {
            None => Leave::At(added),
            Some(_) => match used.filter_map(|t| t.toleration_seconds).min() {
                Some(seconds) => Leave::At(later(added, seconds)),
                None => Leave::Never,
            },
        };
        soonest = match (soonest, leave) {
            (Leave::At(a), Leave::At(b)) => Leave::At(a.min(b)),
            (Leave::Never, other) | (other, Leave::Never) => other,
        };
    }
    soonest
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    let after = time.checked_add(SignedDuration::from_secs(seconds.max(0)));
    after.unwrap_or(Timestamp::MAX)
}

/// The condition that tells why a pod is about to be deleted.
pub fn disruption(reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..Default::default()
    }
}

/// Puts a condition, and perhaps a phase, into a pod's status.
pub async fn mark(
    ctx: &Context,
    pod: &Pod,
    condition: PodCondition,
    phase: Option<&str>,
) -> Result<()> {
    let mut new = pod.status.clone().unwrap_or_default();
    conditions::set(new.conditions.get_or_insert_default(), condition);
    if let Some(phase) = phase {
        new.phase = Some(phase.to_owned());
    }
    write::status(ctx, pod, pod.status.as_ref(), &new).await?;
    Ok(())
}

struct Evictions(Context);

/// Wires the loop; its keys are pods.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on(&ctx.informers.pods, |change| {
            let place = |pod: Option<&Pod>| pod.map(|pod| pods::node_name(pod).to_owned());
            let new = change.new.as_deref();
            let moved = place(new) != place(change.old.as_deref());
            (moved && new.is_some()).then(|| change.key.clone())
        })
        .on(&ctx.informers.nodes, move |change| {
            let taints = |node: Option<&Node>| {
                let taints = node.and_then(|node| node.spec.as_ref()?.taints.clone());
                evicting(&taints.unwrap_or_default())
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let (old, new) = (taints(change.old.as_deref()), taints(change.new.as_deref()));
            let node = if old == new {
                ""
            } else {
                change.key.name.as_str()
            };
            let pods = informers.pods.indexed(&term::on_node(node));
            pods.into_iter().map(|pod| Key::of(&*pod))
        })
        .run(tasks, Evictions(ctx.clone()));
}

impl Controller for Evictions {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let pod = informers.pods.get(key).filter(|pod| pods::is_active(pod));
        let Some(pod) = pod else {
            return Ok(Outcome::Done);
        };
        let node = informers.nodes.get(&Key::cluster(pods::node_name(&pod)));
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.clone());
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref());
        let started = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let started = started.or(pod.metadata.creation_timestamp.as_ref());
        let now = Timestamp::now();
        let started = started.map_or(now, |time| time.0);
        let taints = taints.unwrap_or_default();
        let Leave::At(at) = leaves(tolerations.unwrap_or_default(), &taints, started) else {
            return Ok(Outcome::Done);
        };
        if let Some(wait) = pods::until(at, 0, now) {
            return Ok(Outcome::After(wait));
        }
        let message = "Taint manager: deleting due to NoExecute taint";
        mark(
            &self.0,
            &pod,
            disruption("DeletionByTaintManager", message, now),
            None,
        )
        .await?;
        let note = Note::normal(
            "TaintManagerEviction",
            format!("Marking for deletion Pod {key}"),
        );
        self.0.events.record(NAME, &*pod, note);
        write::delete::<Pod>(&self.0, &pod.metadata).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, now, objects};

    #[test]
    fn golden_cases() {
        golden("eviction", |input| {
            let now = now(input);
            let nodes: Vec<Node> = objects(input, "Node");
            let taints = nodes[0].spec.as_ref().unwrap().taints.clone().unwrap();
            let pods: Vec<Pod> = objects(input, "Pod");
            let lines = pods.iter().map(|pod| {
                let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone());
                let leave = leaves(&tolerations.unwrap_or_default(), &taints, now);
                let leave = match leave {
                    Leave::Never => "stays".to_owned(),
                    Leave::At(at) => format!("leaves at {at}"),
                };
                format!("{}: {leave}", pod.metadata.name.as_ref().unwrap())
            });
            lines.collect::<Vec<_>>().join("\n")
        });
    }
}
