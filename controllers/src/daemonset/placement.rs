//! Which nodes a DaemonSet's pods are for, and which node a pod is for. Pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Taint, Toleration,
};

use crate::common::pods;
use crate::node::eviction::tolerates;
use crate::volume::matching::term_matches;

const NODE_NAME: &str = "metadata.name";

/// Whether a node gets a pod, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It should have a pod.
    pub runs: bool,
    /// A pod that is there stays.
    pub keeps: bool,
}

/// Judges a node by the pod's specification. What else the scheduler looks at, room above all,
/// is left to it.
pub fn judge(spec: &PodSpec, node: &Node) -> Verdict {
    let no = Verdict {
        runs: false,
        keeps: false,
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let wanted = spec.node_name.as_deref().unwrap_or_default();
    if (!wanted.is_empty() && wanted != name) || !selects(spec, node) {
        return no;
    }
    let tolerations = tolerations(spec);
    let tolerated = |taint: &Taint| tolerations.iter().any(|one| tolerates(one, taint));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let offending = taints.unwrap_or_default().iter().filter(|t| !tolerated(t));
    let mut verdict = Verdict {
        runs: true,
        keeps: true,
    };
    for taint in offending {
        verdict.runs &= taint.effect == "PreferNoSchedule";
        verdict.keeps &= taint.effect != "NoExecute";
    }
    verdict
}

fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    if !spec.node_selector.iter().flatten().all(has) {
        return false;
    }
    let terms = required(spec.affinity.as_ref());
    terms.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| term_matches(term, node))
    })
}

fn required(affinity: Option<&Affinity>) -> Option<&NodeSelector> {
    affinity?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

/// Daemons stay on nodes that are ill, for they are often the cure.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    const ALWAYS: [(&str, &str); 6] = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    const ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let on_host = (spec.host_network == Some(true)).then_some(ON_HOST);
    for (key, effect) in ALWAYS.into_iter().chain(on_host) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The specification of the pod for a node: it tolerates what daemons do, and its affinity
/// leaves the scheduler no other node.
pub fn specification(template: &PodSpec, node: &str) -> PodSpec {
    let mut spec = template.clone();
    spec.tolerations = Some(tolerations(&spec));
    let only = NodeSelectorRequirement {
        key: NODE_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default();
    let of_node: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required = of_node
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required
            .node_selector_terms
            .push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![only.clone()]);
    }
    spec
}

/// The node that a pod runs on or waits for.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let required = required(pod.spec.as_ref()?.affinity.as_ref())?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == NODE_NAME && field.operator == "In")?;
    match named.values.as_deref() {
        Some([only]) => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(text: serde_json::Value) -> Node {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn nodes_are_judged() {
        let plain = PodSpec::default();
        let tainted = |key: &str, effect: &str| {
            node(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}},
                "spec": {"taints": [{"key": key, "effect": effect}]}}))
        };
        let verdict = |spec: &PodSpec, node: &Node| {
            let verdict = judge(spec, node);
            (verdict.runs, verdict.keeps)
        };
        assert_eq!(verdict(&plain, &tainted("a", "NoSchedule")), (false, true));
        assert_eq!(verdict(&plain, &tainted("a", "NoExecute")), (false, false));
        assert_eq!(
            verdict(&plain, &tainted("a", "PreferNoSchedule")),
            (true, true)
        );
        let ill = tainted("node.kubernetes.io/unschedulable", "NoSchedule");
        assert_eq!(verdict(&plain, &ill), (true, true));
        let picky: PodSpec =
            serde_json::from_value(json!({"containers": [], "nodeSelector": {"disk": "hdd"}}))
                .unwrap();
        assert_eq!(verdict(&picky, &ill), (false, false));
    }

    #[test]
    fn a_pod_is_for_the_node_of_its_affinity() {
        let spec = specification(&PodSpec::default(), "n1");
        let pod = Pod {
            spec: Some(spec.clone()),
            ..Pod::default()
        };
        assert_eq!(node_of(&pod), Some("n1"));
        assert!(judge(&spec, &node(json!({"metadata": {"name": "n1"}}))).runs);
        assert!(!judge(&spec, &node(json!({"metadata": {"name": "n2"}}))).runs);
        assert_eq!(node_of(&Pod::default()), None);
    }
}
