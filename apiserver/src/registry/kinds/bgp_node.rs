//! `net.peapod.dev/v1 BgpNode`: how one node speaks BGP, told by its network agent.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use peapod_api::net::{BgpNode, GROUP};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use crate::registry::{Column, Kind, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "BgpNode", "bgpnodes")
        .short_names(&["bgpn"])
        .with_status()
        .columns(vec![
            Column::name(),
            Column::path("AS", "integer", "status.asn"),
            Column::path("Router ID", "string", "status.routerId"),
            Column::computed("Sessions", "string", |node, _| {
                let sessions = value::list(node, "status.sessions");
                let up = |one: &&Value| value::text(one, "state") == "Established";
                format!("{}/{}", sessions.iter().filter(up).count(), sessions.len()).into()
            }),
            Column::path("Announced", "integer", "status.announced"),
            Column::path("Refused", "integer", "status.refusedRoutes"),
            Column::age(),
            Column::path("Last Error", "string", "status.lastError").wide(),
        ])
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&BgpNode::crd()));
    structural::add_kind(graph, "net.v1.BgpNode", &SHAPE);
}
