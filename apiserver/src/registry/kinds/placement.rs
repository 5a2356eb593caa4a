//! `net.peapod.dev/v1 Placement`: one place where a pod has been. Recorded, never written by
//! clients; see [`crate::placements`].

use std::sync::LazyLock;

use kube::CustomResourceExt;
use peapod_api::net::{GROUP, Placement};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use crate::registry::{Column, Kind, value};
use crate::rest::target::Verb;

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "Placement", "placements")
        .short_names(&["plc"])
        .verbs(&[Verb::Get, Verb::List, Verb::Watch])
        .columns(vec![
            Column::name(),
            Column::path("Workload", "string", "spec.workload"),
            Column::path("Node", "string", "spec.node"),
            Column::computed("Leaves", "string", |one, _| {
                let leaves = value::list(one, "spec.leaves").iter();
                let names: Vec<&str> = leaves.map(|leaf| value::text(leaf, "name")).collect();
                names.join(",").into()
            }),
            Column::computed("IP", "string", |one, _| {
                let first = value::list(one, "spec.addresses").first();
                first.cloned().unwrap_or_default()
            }),
            Column::path("From", "string", "spec.from"),
            Column::path("To", "string", "spec.to"),
            Column::path("Reason", "string", "spec.reason"),
            Column::path("Left", "string", "spec.endReason"),
            Column::path("Rack", "string", "spec.rack").wide(),
            Column::path("Replaces", "string", "spec.replaces").wide(),
        ])
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&Placement::crd()));
    structural::add_kind(graph, "net.v1.Placement", &SHAPE);
}
