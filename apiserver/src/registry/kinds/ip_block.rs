//! `net.peapod.dev/v1 IpBlock`: a block of pod addresses held by one node.

use std::sync::LazyLock;

use ipnet::IpNet;
use kube::CustomResourceExt;
use peapod_api::net::{GROUP, IpBlock, block_name};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "IpBlock", "ipblocks")
        .short_names(&["ipb"])
        .with_generation()
        .selectable(&["spec.node", "spec.pool"])
        .indexed(&["spec.node"])
        .columns(vec![
            Column::name(),
            Column::path("CIDR", "string", "spec.cidr"),
            Column::path("Node", "string", "spec.node"),
            Column::path("Pool", "string", "spec.pool"),
            Column::age(),
        ])
        .rules(IpBlocks)
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&IpBlock::crd()));
    structural::add_kind(graph, "net.v1.IpBlock", &SHAPE);
}

struct IpBlocks;

impl Rules for IpBlocks {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        root.at("spec.node").required(errors);
        let cidr = root.at("spec.cidr");
        match cidr.text().parse::<IpNet>() {
            Err(_) => crate::registry::checks::cidr(&cidr, errors),
            Ok(net) if net.trunc() != net => {
                cidr.invalid(
                    errors,
                    format!("must be the block's first address: {}", net.trunc()),
                );
            }
            Ok(net) => {
                let name = root.at("metadata.name");
                let wanted = block_name(net);
                if name.text() != wanted {
                    let why = format!("must be {wanted:?}, after the block");
                    name.invalid(errors, why);
                }
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        root.at("spec.cidr").unchanged(old, errors);
        root.at("spec.node").unchanged(old, errors);
    }
}
