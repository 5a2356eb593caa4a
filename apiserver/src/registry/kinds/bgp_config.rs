//! `net.peapod.dev/v1 BgpConfig`: what all nodes have in common when they speak BGP.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use peapod_api::net::{BgpConfig, DEFAULT_BGP_CONFIG, GROUP};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use super::bgp_policy;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

/// The choices of an AS plan.
const PLANS: [&str; 3] = ["shared", "perNode", "perRack"];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "BgpConfig", "bgpconfigs")
        .short_names(&["bgpc"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("AS Plan", "string", |config, _| {
                let plan = value::at(config, "spec.asPlan").unwrap_or(&Value::Null);
                let chosen = PLANS
                    .into_iter()
                    .find(|plan_name| plan.get(plan_name).is_some());
                chosen.unwrap_or("shared").into()
            }),
            Column::path("Leaf Routes", "integer", "status.tables.leaf.routes"),
            Column::path("Spine Routes", "integer", "status.tables.spine.routes"),
            Column::path(
                "Without Aggregation",
                "integer",
                "status.tables.leaf.withoutAggregation",
            ),
            Column::age(),
            Column::path("Node Routes", "integer", "status.tables.node.routes").wide(),
            Column::path("Leaf By Rack", "integer", "status.tables.leaf.byRack").wide(),
            Column::path("Spine By Rack", "integer", "status.tables.spine.byRack").wide(),
        ])
        .rules(BgpConfigs)
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&BgpConfig::crd()));
    structural::add_kind(graph, "net.v1.BgpConfig", &SHAPE);
}

struct BgpConfigs;

impl Rules for BgpConfigs {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let name = root.at("metadata.name");
        if name.text() != DEFAULT_BGP_CONFIG {
            name.invalid(
                errors,
                format!("must be {DEFAULT_BGP_CONFIG:?}: there is one"),
            );
        }
        let spec = root.at("spec");
        spec.at("multipath").within(errors, 1..=64);
        bgp_policy::communities(&spec.at("announce.communities"), errors);
        let router_id = spec.at("routerId");
        if router_id.is_set() {
            router_id.one_of(errors, &["NodeIP", "NodeName"]);
        }
        let restart = spec.at("gracefulRestart");
        restart.at("restartSeconds").within(errors, 1..=4095);
        restart.at("stalePathSeconds").within(errors, 1..=86_400);
        restart
            .at("longLivedSeconds")
            .within(errors, 0..=(1 << 24) - 1);
        let plan = spec.at("asPlan");
        let given = PLANS.iter().filter(|name| plan.at(name).is_set()).count();
        if given > 1 {
            plan.invalid(errors, "give one of shared, perNode and perRack");
        }
        for asn in ["shared.asn", "perNode.from"] {
            bgp_policy::as_number(&plan.at(asn), errors);
        }
        let racks = plan.at("perRack.racks");
        for (_, asn) in racks.entries() {
            bgp_policy::as_number(&asn, errors);
        }
        if plan.at("perRack").is_set() && racks.is_empty() {
            racks.missing(errors, "name the AS of each rack");
        }
    }
}
