//! ClusterRoles that are put together of others: `admin`, `edit`, `view`, and whatever has an
//! `aggregationRule`. Upstream calls the loop `clusterrole-aggregation-controller`.
//!
//! The core is [`gather`].

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use peapod_api::selector::Selector;

use crate::common::Key;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

struct Aggregation(Context);

/// Wires the loop; its keys are ClusterRoles that have an aggregation rule.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let roles = ctx.informers.cluster_roles.clone();
    Loop::new(ctx, "clusterrole_aggregation_controller")
        .on(
            &ctx.informers.cluster_roles,
            move |_: &Change<ClusterRole>| {
                let all = roles.all().into_iter();
                let aggregated = all.filter(|role| role.aggregation_rule.is_some());
                aggregated.map(|role| Key::of(&*role)).collect::<Vec<_>>()
            },
        )
        .workers(1)
        .run(tasks, Aggregation(ctx.clone()));
}

/// The rules of every role that the aggregation rule of `role` selects, in the order of their
/// names, each rule once; `None` when the role gathers nothing. A selector that cannot be read
/// selects nothing.
fn gather(role: &ClusterRole, mut all: Vec<Arc<ClusterRole>>) -> Option<Vec<PolicyRule>> {
    let rule = role.aggregation_rule.as_ref()?;
    let selectors = rule.cluster_role_selectors.iter().flatten();
    let selectors: Vec<Selector> = selectors
        .filter_map(|selector| Selector::from_label_selector(selector).ok())
        .collect();
    all.retain(|other| other.metadata.name != role.metadata.name);
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in &selectors {
        for other in &all {
            let labels = other.metadata.labels.as_ref();
            let label = |key: &str| labels.and_then(|all| all.get(key)).map(String::as_str);
            if !selector.matches_with(label) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

impl Controller for Aggregation {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let roles = &self.0.informers.cluster_roles;
        let Some(old) = roles.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(rules) = gather(&old, roles.all()) else {
            return Ok(Outcome::Done);
        };
        if old.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Outcome::Done);
        }
        let new = ClusterRole {
            rules: Some(rules),
            ..ClusterRole::clone(&old)
        };
        write::update(&self.0, &*old, &new).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn role(name: &str, tag: &str, gathers: &[&str], resources: &[&str]) -> Arc<ClusterRole> {
        let rules = resources
            .iter()
            .map(|what| json!({"verbs": ["get"], "apiGroups": [""], "resources": [what]}));
        let selectors = gathers
            .iter()
            .map(|tag| json!({"matchLabels": {"tag": tag}}));
        let mut role = json!({
            "metadata": {"name": name, "labels": {"tag": tag}},
            "rules": rules.collect::<Vec<_>>(),
        });
        if !gathers.is_empty() {
            role["aggregationRule"] =
                json!({"clusterRoleSelectors": selectors.collect::<Vec<Value>>()});
        }
        Arc::new(serde_json::from_value(role).unwrap())
    }

    #[test]
    fn gathers_what_is_selected_once_and_in_order() {
        let all = vec![
            role("view", "edit", &["view"], &["pods", "old"]),
            role("b", "view", &[], &["pods", "services"]),
            role("a", "view", &[], &["configmaps", "pods"]),
            role("edit", "", &["edit", "view"], &[]),
            role("plain", "other", &[], &["secrets"]),
        ];
        for (name, expected) in [
            ("view", Some("configmaps pods services")),
            ("edit", Some("pods old configmaps services")),
            ("plain", None),
        ] {
            let role = all
                .iter()
                .find(|role| role.metadata.name.as_deref() == Some(name));
            let rules = gather(role.unwrap(), all.clone());
            let told = rules.map(|rules| {
                let resources = rules
                    .iter()
                    .flat_map(|rule| rule.resources.iter().flatten());
                resources.map(String::as_str).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(told.as_deref(), expected, "{name}");
        }
    }
}
