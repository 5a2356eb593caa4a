//! A Deployment in a cluster of numbers, driven by a script: the golden tests of `core`.
//!
//! Every line of a script is something that a user or the cluster does; after it plans are
//! made and carried out until nothing changes. ReplicaSets get their pods at once; pods become
//! available only when the script says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::core::{Observed, Plan, plan};
use super::{limits, revision};
use crate::common::testing::golden;

/// A Deployment with these limits; numbers may be percentages.
pub fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let number = |text: &str| match text.parse::<i32>() {
        Ok(number) => json!(number),
        Err(_) => json!(text),
    };
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {
                "maxSurge": number(surge), "maxUnavailable": number(unavailable),
            }},
            "template": template("v1"),
        },
    });
    serde_json::from_value(deployment).unwrap()
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": image}]},
    })
}

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    out: Vec<String>,
}

impl World {
    fn new(words: &BTreeMap<&str, &str>) -> Self {
        let word = |name, default| words.get(name).copied().unwrap_or(default);
        let number = |name| words.get(name).map(|text| text.parse().unwrap());
        let replicas = number("replicas").unwrap_or(1);
        let mut deployment = deployment(replicas, word("surge", "25%"), word("unavailable", "25%"));
        deployment.spec.progress_deadline_seconds = number("deadline");
        deployment.spec.revision_history_limit = number("history");
        if words.contains_key("recreate") {
            let strategy = deployment.spec.strategy.get_or_insert_default();
            strategy.type_ = Some("Recreate".into());
        }
        Self {
            deployment,
            sets: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            out: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let spec = &mut self.deployment.spec;
        match verb {
            "new" => {}
            "image" => spec.template = serde_json::from_value(template(argument)).unwrap(),
            "scale" => spec.replicas = Some(argument.parse().unwrap()),
            "pause" => spec.paused = Some(true),
            "resume" => spec.paused = None,
            "ready" => self.ready(argument.parse().unwrap_or(i32::MAX)),
            "wait" => self.now += SignedDuration::from_secs(argument.parse().unwrap()),
            _ => panic!("what is {line:?}?"),
        }
        if !matches!(verb, "ready" | "wait") {
            *self.deployment.metadata.generation.get_or_insert_default() += 1;
        }
        self.out.push(format!("> {line}"));
        self.settle();
        let summary = self.summary();
        self.out.push(summary);
    }

    /// Makes up to `count` more pods of each ReplicaSet available.
    fn ready(&mut self, count: i32) {
        for set in &mut self.sets {
            let status = set.status.get_or_insert_default();
            let available = status.available_replicas.unwrap_or(0);
            let more = available.saturating_add(count).min(status.replicas);
            status.available_replicas = Some(more);
            status.ready_replicas = Some(more);
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let observed = Observed {
                deployment: &self.deployment.clone(),
                sets: self.sets.iter().cloned().map(Arc::new).collect(),
                with_pods: Vec::new(),
            };
            if !self.apply(plan(observed, self.now)) {
                return;
            }
            self.run_pods();
        }
        panic!("did not settle:\n{}", self.out.join("\n"));
    }

    /// Carries a plan out; whether it changed anything.
    fn apply(&mut self, plan: Plan) -> bool {
        let old_status = self.deployment.status.replace(plan.status);
        let mut changed = old_status != self.deployment.status || plan.revision.is_some();
        for (_, new) in plan.update {
            let old = self
                .sets
                .iter_mut()
                .find(|set| set.metadata.name == new.metadata.name);
            let old = old.unwrap();
            changed |= *old != new;
            *old = new;
            *old.metadata.generation.get_or_insert_default() += 1;
        }
        for gone in &plan.delete {
            changed = true;
            self.out.push(format!("  delete {}", image(gone)));
            self.sets
                .retain(|set| set.metadata.name != gone.metadata.name);
        }
        if let Some(mut set) = plan.create {
            changed = true;
            set.metadata.uid = set.metadata.name.clone();
            let age = i64::try_from(self.sets.len()).unwrap();
            let created = self.now + SignedDuration::from_millis(age);
            set.metadata.creation_timestamp = Some(Time(created));
            self.sets.push(set);
        }
        if let Some(number) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.into(), number);
        }
        for note in plan.notes {
            let text = self.sets.iter().fold(note.message, |text, set| {
                text.replace(set.metadata.name.as_deref().unwrap(), image(set))
            });
            self.out.push(format!("  {text}"));
        }
        changed
    }

    /// Every ReplicaSet has its pods at once; what goes is first what is not available.
    fn run_pods(&mut self) {
        for set in &mut self.sets {
            let size = limits::size(set);
            let generation = set.metadata.generation;
            let status: &mut ReplicaSetStatus = set.status.get_or_insert_default();
            status.replicas = size;
            status.observed_generation = generation;
            let available = status.available_replicas.unwrap_or(0).min(size);
            status.available_replicas = Some(available);
            status.ready_replicas = Some(available);
        }
    }

    fn summary(&self) -> String {
        let sets = self.sets.iter().map(|set| {
            let available = set.status.as_ref().and_then(|s| s.available_replicas);
            let (size, available) = (limits::size(set), available.unwrap_or(0));
            format!(
                "{}: {available}/{size} rev {}",
                image(set),
                revision::of(set)
            )
        });
        let status = self.deployment.status.as_ref().unwrap();
        let conditions = status.conditions.iter().flatten().map(|condition| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            format!("{} {}", text(&condition.type_), text(&condition.reason))
        });
        let sets: Vec<_> = sets.collect();
        let conditions: Vec<_> = conditions.collect();
        format!("  [{}] {}", sets.join(", "), conditions.join(", "))
    }
}

fn image(set: &ReplicaSet) -> &str {
    let spec = set.spec.template.as_ref().unwrap().spec.as_ref().unwrap();
    spec.containers[0].image.as_deref().unwrap()
}

fn run(script: &str) -> String {
    let mut lines = script
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let first = lines.next().unwrap();
    let words = first
        .split(' ')
        .map(|word| word.split_once('=').unwrap_or((word, "")));
    let mut world = World::new(&words.collect());
    world.line(first);
    lines.for_each(|line| world.line(line));
    world.out.join("\n")
}

#[test]
fn golden_rollouts() {
    golden("deployment", run);
}
