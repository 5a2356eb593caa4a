//! `net.peapod.dev/v1 IpPool`: a range of pod addresses that nodes get blocks of.

use std::sync::LazyLock;

use ipnet::IpNet;
use kube::CustomResourceExt;
use peapod_api::net::{GROUP, IpPool, IpPoolSpec};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::{Value, json};

use crate::registry::{At, Column, FieldErrors, Kind, Rules, checks, value};

const ENCAPSULATIONS: [&str; 4] = ["Direct", "Routed", "VXLAN", "VXLANCrossSubnet"];
/// Bits that the number of a block may have: pools of at most 2^32 blocks.
const BLOCK_BITS_MAX: u8 = 32;

/// Addresses that neither pods nor services may have: what is not unicast, loopback, link-local.
pub const NOT_UNICAST: [&str; 7] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/64",
    "fe80::/10",
    "ff00::/8",
];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "IpPool", "ippools")
        .short_names(&["ipp"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::path("CIDR", "string", "spec.cidr"),
            Column::path("Block Size", "integer", "spec.blockSize"),
            Column::path("Blocks Used", "integer", "status.blocks.used"),
            Column::path("Blocks Free", "integer", "status.blocks.free"),
            Column::path("Addresses In Use", "integer", "status.addressesInUse"),
            Column::age(),
            Column::path("Encapsulation", "string", "spec.encapsulation").wide(),
            Column::path("NAT Outgoing", "boolean", "spec.natOutgoing").wide(),
            Column::path("Disabled", "boolean", "spec.disabled").wide(),
        ])
        .rules(IpPools)
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&IpPool::crd()));
    structural::add_kind(graph, "net.v1.IpPool", &SHAPE);
}

struct IpPools;

impl Rules for IpPools {
    fn defaults(&self, object: &mut Value) {
        let cidr = value::text(object, "spec.cidr").parse();
        let spec = value::entry(object, "spec");
        if let Ok(cidr) = cidr
            && spec.get("blockSize").is_none_or(Value::is_null)
        {
            spec["blockSize"] = json!(IpPoolSpec::default_block_size(cidr));
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let cidr = spec.at("cidr");
        match cidr.text().parse::<IpNet>() {
            Err(_) => checks::cidr(&cidr, errors),
            Ok(net) if net.trunc() != net => {
                cidr.invalid(
                    errors,
                    format!("must be the range's first address: {}", net.trunc()),
                );
            }
            Ok(net) if !is_for_pods(net) => {
                cidr.invalid(
                    errors,
                    "must be a range of unicast addresses, and not loopback or link-local ones",
                );
            }
            // A block has a route of its own, and so has each pod: they must differ.
            Ok(net) if net.prefix_len() == net.max_prefix_len() => {
                cidr.invalid(errors, "must hold two addresses at least");
            }
            Ok(net) => block_size(&spec.at("blockSize"), net, errors),
        }
        let selector = spec.at("nodeSelector");
        if selector.is_set() {
            checks::label_selector(&selector, errors);
        }
        spec.at("encapsulation").one_of(errors, &ENCAPSULATIONS);
        // Links of pods carry IPv6, which needs 1280 (RFC 8200, section 5).
        spec.at("mtu").within(errors, 1280..=65_535);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        root.at("spec.cidr").unchanged(old, errors);
        root.at("spec.blockSize").unchanged(old, errors);
    }
}

fn block_size(size: &At<'_>, cidr: IpNet, errors: &mut FieldErrors) {
    let shortest = cidr.prefix_len();
    let longest = (cidr.max_prefix_len() - 1).min(shortest.saturating_add(BLOCK_BITS_MAX));
    size.within(errors, i64::from(shortest)..=i64::from(longest));
}

/// Whether pods may have the addresses of a range.
fn is_for_pods(range: IpNet) -> bool {
    let overlaps =
        |unfit: IpNet| unfit.contains(&range.network()) || range.contains(&unfit.network());
    !NOT_UNICAST
        .iter()
        .filter_map(|text| text.parse().ok())
        .any(overlaps)
}
