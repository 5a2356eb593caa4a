//! `peapod net policies`: which pods NetworkPolicies select, and that nothing enforces them yet.

use anyhow::Result;
use peapod_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use peapod_api::selector::Selector;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::show::{Cell, Table, Tone};
use super::source::{items, key, namespaced, text};

/// What is said of every policy: the truth.
pub const ENFORCEMENT: &str = "none: the network agent programs no NetworkPolicy";

/// A policy, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownPolicy {
    /// `namespace/name`
    pub policy: String,
    /// The pods that it selects.
    pub pods: Vec<String>,
    /// `Ingress`, `Egress`
    pub types: Vec<String>,
    /// How many rules it has: ingress and egress.
    pub rules: [usize; 2],
    /// What the data plane does about it.
    pub enforced: &'static str,
}

/// Shows it.
pub async fn run(context: &Context) -> Result<()> {
    let policies = namespaced(context, "/apis/networking.k8s.io/v1", "networkpolicies").await?;
    let pods = namespaced(context, "/api/v1", "pods").await?;
    let shown = policies_of(&policies, &pods);
    if context.format.is_table() && !shown.is_empty() {
        eprintln!("enforced: {ENFORCEMENT}; every pod reaches every pod");
    }
    context.format.print(&shown, || table(&shown))
}

/// The policies, with the pods that each selects.
pub fn policies_of(policies: &[Value], pods: &[Value]) -> Vec<ShownPolicy> {
    let shown = policies.iter().map(|policy| {
        let namespace = text(policy, "/metadata/namespace");
        let selected = pods
            .iter()
            .filter(|pod| text(pod, "/metadata/namespace") == namespace && selects(policy, pod));
        let types = items(policy, "/spec/policyTypes").iter();
        ShownPolicy {
            policy: key(policy),
            pods: selected
                .map(|pod| text(pod, "/metadata/name").to_owned())
                .collect(),
            types: types.filter_map(Value::as_str).map(str::to_owned).collect(),
            rules: [
                items(policy, "/spec/ingress").len(),
                items(policy, "/spec/egress").len(),
            ],
            enforced: ENFORCEMENT,
        }
    });
    shown.collect()
}

fn selects(policy: &Value, pod: &Value) -> bool {
    let selector = policy
        .pointer("/spec/podSelector")
        .cloned()
        .unwrap_or_default();
    let selector = serde_json::from_value::<LabelSelector>(selector).unwrap_or_default();
    let labels = &pod["metadata"]["labels"];
    Selector::from_label_selector(&selector)
        .is_ok_and(|selector| selector.matches_with(|key| labels[key].as_str()))
}

fn table(shown: &[ShownPolicy]) -> Table {
    let mut table = Table::new(&["POLICY", "TYPES", "RULES (IN/OUT)", "PODS", "ENFORCED"]);
    for one in shown {
        table.row(vec![
            one.policy.as_str().into(),
            one.types.join(",").into(),
            format!("{}/{}", one.rules[0], one.rules[1]).into(),
            one.pods.join(",").into(),
            Cell::toned("no", Tone::Bad),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_names_its_pods_and_that_nothing_enforces_it() {
        let policy = json!({
            "metadata": {"namespace": "a", "name": "deny"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": []},
        });
        let pod = |namespace, name, app| json!({"metadata": {"namespace": namespace, "name": name, "labels": {"app": app}}});
        let pods = [
            pod("a", "web-1", "web"),
            pod("a", "db-1", "db"),
            pod("b", "web-2", "web"),
        ];
        let shown = policies_of(&[policy], &pods);
        assert_eq!(shown[0].pods, ["web-1"]);
        assert!(shown[0].enforced.starts_with("none"));
        let text = table(&shown).render(false, None, false);
        assert!(
            text.ends_with("a/deny   Ingress   0/0              web-1   no\n"),
            "{text}"
        );
    }
}
