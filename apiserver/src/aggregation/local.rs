//! The `APIService` objects of what this server serves itself, so that they list all that is served, as
//! upstream's autoregistration keeps them: those of built-in groups are made when they are missing at the
//! start, and are the administrator's afterwards; those of custom resources come and go with these.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::Api;
use crate::registry::{Resource, value};
use crate::rest::create;
use crate::rest::delete::{self, DeleteOptions};
use crate::rest::write::Write;
use crate::status::Status;

/// Marks the objects that are kept here.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Made at a start only.
const ON_START: &str = "onstart";
/// Kept always.
const ALWAYS: &str = "true";

/// Where groups stand in lists, the first highest: upstream's order, by the group's minimum priority.
const GROUPS: [(&str, i64); 21] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("resource.k8s.io", 15900),
    // They have no object of their own: they are served before any is looked at.
    ("apiregistration.k8s.io", 0),
];
/// The priorities of any other group, and of its versions.
const OTHERS: (i64, i64) = (1000, 100);

/// A step towards the objects that should be.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Make(Value),
    Remove(String),
}

/// What is to be done: `served` are groups and versions with whether they are built in, the preferred
/// version of a group first; `present` the objects that are there; `starting` whether the server has just
/// begun.
fn plan(served: &[(String, String, bool)], present: &[Value], starting: bool) -> Vec<Step> {
    let names: BTreeMap<&str, &Value> = present
        .iter()
        .map(|object| (value::text(object, "metadata.name"), object))
        .collect();
    let mut steps = Vec::new();
    let mut rank: BTreeMap<&str, i64> = BTreeMap::new();
    for (group, version, builtin) in served {
        let below = rank.entry(group).or_default();
        let at = *below;
        *below += 1;
        let known = GROUPS.iter().find(|(name, _)| name == group);
        if known.is_some_and(|(_, priority)| *priority == 0) || (*builtin && !starting) {
            continue;
        }
        let name = format!("{version}.{group}");
        if !names.contains_key(name.as_str()) {
            let priorities = match known {
                Some((_, priority)) => (*priority, (15 - at).max(1)),
                None => (OTHERS.0, (OTHERS.1 - at).max(1)),
            };
            let managed = if *builtin { ON_START } else { ALWAYS };
            steps.push(Step::Make(object(
                &name, group, version, priorities, managed,
            )));
        }
    }
    let is_served = |object: &Value| {
        let (group, version) = (
            value::text(object, "spec.group"),
            value::text(object, "spec.version"),
        );
        served.iter().any(|(g, v, _)| g == group && v == version)
    };
    for object in present {
        if object["metadata"]["labels"][MANAGED] == ALWAYS && !is_served(object) {
            steps.push(Step::Remove(
                value::text(object, "metadata.name").to_owned(),
            ));
        }
    }
    steps
}

fn object(name: &str, group: &str, version: &str, priorities: (i64, i64), managed: &str) -> Value {
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priorities.0,
        "versionPriority": priorities.1,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name, "labels": {MANAGED: managed}},
        "spec": spec,
    })
}

/// Makes and removes what is to be.
///
/// # Errors
/// What a write answers.
pub async fn keep(
    api: &Api,
    kind: &Resource,
    present: &[Value],
    starting: bool,
) -> Result<(), Status> {
    let versions = api.registry.versions().into_iter();
    let served: Vec<(String, String, bool)> = versions
        .map(|(group, version)| {
            let builtin = api.registry.builtin_of_group(&group).next().is_some();
            (group, version, builtin)
        })
        .collect();
    for step in plan(&served, present, starting) {
        let name = match &step {
            Step::Make(object) => value::text(object, "metadata.name"),
            Step::Remove(name) => name,
        };
        let write = Write::by_server(api, kind, "", name);
        let written = match &step {
            Step::Make(object) => create::insert(&write, object.clone()).await,
            Step::Remove(_) => delete::remove(&write, &DeleteOptions::default()).await,
        };
        match written {
            // Another server of the store was quicker.
            Err(status) if matches!(status.code.as_u16(), 404 | 409) => {}
            written => drop(written?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(all: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
        all.iter()
            .map(|(group, version, builtin)| ((*group).into(), (*version).into(), *builtin))
            .collect()
    }

    fn made(steps: &[Step]) -> Vec<String> {
        let line = |step: &Step| match step {
            Step::Make(object) => format!(
                "+{} {} {} {}",
                value::text(object, "metadata.name"),
                object["spec"]["groupPriorityMinimum"],
                object["spec"]["versionPriority"],
                object["metadata"]["labels"][MANAGED]
                    .as_str()
                    .unwrap_or_default(),
            ),
            Step::Remove(name) => format!("-{name}"),
        };
        steps.iter().map(line).collect()
    }

    #[test]
    fn all_that_is_served_is_listed_in_upstreams_order() {
        let served = served(&[
            ("", "v1", true),
            ("autoscaling", "v2", true),
            ("autoscaling", "v1", true),
            ("apiregistration.k8s.io", "v1", true),
            ("example.com", "v1", false),
            ("example.com", "v1beta1", false),
        ]);
        assert_eq!(
            made(&plan(&served, &[], true)),
            [
                "+v1. 18000 15 onstart",
                "+v2.autoscaling 17500 15 onstart",
                "+v1.autoscaling 17500 14 onstart",
                "+v1.example.com 1000 100 true",
                "+v1beta1.example.com 1000 99 true",
            ]
        );
    }

    #[test]
    fn afterwards_only_those_of_custom_resources_are_kept() {
        let old = object("v1.gone.com", "gone.com", "v1", OTHERS, ALWAYS);
        let other = object("v1.other.com", "other.com", "v1", OTHERS, "");
        let steps = plan(
            &served(&[("", "v1", true), ("example.com", "v1", false)]),
            &[old, other],
            false,
        );
        assert_eq!(
            made(&steps),
            ["+v1.example.com 1000 100 true", "-v1.gone.com"]
        );
    }
}
