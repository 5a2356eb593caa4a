//! `v1 Pod`

use serde_json::{Value, json};

use crate::registry::{Column, Kind, Rules, Subresource, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Pod", "pods")
        .short_names(&["po"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Binding)
        .subresource(Subresource::Eviction)
        .subresource(Subresource::EphemeralContainers)
        .subresource(Subresource::Log)
        .subresource(Subresource::Exec)
        .subresource(Subresource::Attach)
        .subresource(Subresource::PortForward)
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ])
        .indexed(&["spec.nodeName"])
        .columns(vec![
            Column::name(),
            Column::path("Status", "string", "status.phase"),
            Column::age(),
            Column::path("IP", "string", "status.podIP").wide(),
            Column::path("Node", "string", "spec.nodeName").wide(),
        ])
        .rules(Pods)
}

struct Pods;

impl Rules for Pods {
    fn prepare_create(&self, object: &mut Value) {
        value::set(
            object,
            "status",
            json!({"phase": "Pending", "qosClass": "BestEffort"}),
        );
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let wanted = asked
            .or_else(|| value::integer(object, "spec.terminationGracePeriodSeconds"))
            .unwrap_or(30);
        let unassigned = value::text(object, "spec.nodeName").is_empty();
        let ended = matches!(value::text(object, "status.phase"), "Failed" | "Succeeded");
        match (unassigned || ended, wanted) {
            (true, _) => Some(0),
            (false, ..0) => Some(1),
            (false, wanted) => Some(wanted),
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
