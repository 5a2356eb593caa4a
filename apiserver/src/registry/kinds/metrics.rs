//! `metrics.k8s.io/v1beta1`: what nodes and pods use. Measured, never written by clients; see
//! [`crate::usage`].

use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::{Value, json};

use crate::registry::{Column, Kind, value};
use crate::rest::target::Verb;
use crate::usage::GROUP;

const VERSION: &str = "v1beta1";

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    let verbs = [Verb::Get, Verb::List];
    let nodes = Kind::cluster(GROUP, VERSION, "NodeMetrics", "nodes").columns(vec![
        Column::name(),
        Column::path("CPU", "string", "usage.cpu"),
        Column::path("Memory", "string", "usage.memory"),
        Column::path("Window", "string", "window"),
    ]);
    let pods = Kind::namespaced(GROUP, VERSION, "PodMetrics", "pods").columns(vec![
        Column::name(),
        Column::computed("CPU", "string", |pod, _| sum(pod, "usage.cpu", "n")),
        Column::computed("Memory", "string", |pod, _| sum(pod, "usage.memory", "Ki")),
        Column::path("Window", "string", "window"),
    ]);
    vec![nodes.verbs(&verbs), pods.verbs(&verbs)]
}

/// What all containers use together.
fn sum(pod: &Value, path: &str, unit: &str) -> Value {
    let containers = value::list(pod, "containers").iter();
    let numbers = containers.filter_map(|one| {
        let number = value::text(one, path).strip_suffix(unit)?;
        number.parse::<u64>().ok()
    });
    format!("{}{unit}", numbers.sum::<u64>()).into()
}

/// Adds the shapes of the kinds, which stand in no published table.
pub fn add_shapes(graph: &mut Graph) {
    let text = || json!({"type": "string"});
    let usage = || {
        let quantity = json!({"x-kubernetes-int-or-string": true});
        json!({"type": "object", "additionalProperties": quantity})
    };
    let container = json!({"type": "object", "properties": {"name": text(), "usage": usage()}});
    let time = json!({"type": "string", "format": "date-time"});
    let shape = |field: &str, schema: Value| {
        let mut shape = json!({
            "type": "object",
            "properties": {"timestamp": time, "window": text()},
        });
        shape["properties"][field] = schema;
        shape
    };
    let node = shape("usage", usage());
    structural::add_kind(graph, "metrics.v1beta1.NodeMetrics", &node);
    let pod = shape("containers", json!({"type": "array", "items": container}));
    structural::add_kind(graph, "metrics.v1beta1.PodMetrics", &pod);
}
