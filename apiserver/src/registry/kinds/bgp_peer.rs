//! `net.peapod.dev/v1 BgpPeer`: neighbours that nodes speak BGP with.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use kube::CustomResourceExt;
use peapod_api::names;
use peapod_api::net::{BgpPeer, GROUP};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use super::bgp_policy::{self, Direction};
use crate::registry::{At, Column, FieldErrors, Kind, Rules, checks, value};

/// Longest name of an interface that the kernel has, bytes.
const INTERFACE_MAX: usize = 15;
/// The hold time where none is given.
const USUAL_HOLD_SECONDS: i64 = 90;
/// The address families that are spoken.
const FAMILIES: [&str; 2] = ["ipv4-unicast", "ipv6-unicast"];

/// What a node can be to its neighbour.
const ROLES: [&str; 5] = ["customer", "peer", "provider", "rs-client", "rs-server"];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "BgpPeer", "bgppeers")
        .short_names(&["bgpp"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Neighbor", "string", |peer, _| {
                let address = value::text(peer, "spec.address");
                match address {
                    "" => value::text(peer, "spec.interface").into(),
                    address => address.into(),
                }
            }),
            Column::path("AS", "string", "spec.remoteAs"),
            Column::path("State", "string", "status.state"),
            Column::path("Established", "integer", "status.established"),
            Column::path("Desired", "integer", "status.desired"),
            Column::age(),
            Column::path("Last Error", "string", "status.lastError").wide(),
        ])
        .rules(BgpPeers)
}

/// Adds the shape of the kind, which its Rust type has.
pub fn add_shape(graph: &mut Graph) {
    static SHAPE: LazyLock<Value> = LazyLock::new(|| super::shape_of(&BgpPeer::crd()));
    structural::add_kind(graph, "net.v1.BgpPeer", &SHAPE);
}

struct BgpPeers;

impl Rules for BgpPeers {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        neighbor(&spec, errors);
        remote_as(&spec.at("remoteAs"), errors);
        let selector = spec.at("nodeSelector");
        if selector.is_set() {
            checks::label_selector(&selector, errors);
        }
        if spec.at("port").is_set() {
            checks::port(&spec.at("port"), errors);
        }
        if spec.at("auth").is_set() {
            let secret = spec.at("auth.secretRef");
            secret.at("name").require_name(errors, names::dns_subdomain);
            secret.at("key").follows(errors, names::config_key);
        }
        spec.at("bfd.intervalMs").within(errors, 10..=60_000);
        spec.at("bfd.multiplier").within(errors, 1..=255);
        timers(&spec.at("timers"), errors);
        spec.at("ttlSecurity").within(errors, 1..=254);
        spec.at("multihop").within(errors, 1..=255);
        spec.at("maxPrefixes")
            .within(errors, 1..=i64::from(u32::MAX));
        if spec.at("ttlSecurity").is_set() && spec.at("multihop").is_set() {
            spec.at("multihop")
                .forbidden(errors, "may not be given with ttlSecurity");
        }
        if spec.at("interface").is_set() && spec.at("multihop").is_set() {
            spec.at("multihop")
                .forbidden(errors, "a neighbor by interface is one hop away");
        }
        families(&spec.at("families"), errors);
        bgp_policy::policy(&spec.at("import"), Direction::Import, errors);
        bgp_policy::policy(&spec.at("export"), Direction::Export, errors);
        as_numbers(&spec, errors);
    }
}

fn families(list: &At<'_>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for family in list.items() {
        family.one_of(errors, &FAMILIES);
        if !seen.insert(family.text().to_owned()) {
            family.duplicate(errors);
        }
    }
}

fn timers(timers: &At<'_>, errors: &mut FieldErrors) {
    let hold = timers.at("holdSeconds");
    if matches!(hold.int(), Some(1 | 2)) {
        hold.invalid(errors, "must be 0 or at least 3 (RFC 4271, section 4.2)");
    }
    let keepalive = timers.at("keepaliveSeconds");
    keepalive.within(errors, 1..=65_535);
    let hold = hold.int().unwrap_or(USUAL_HOLD_SECONDS);
    if keepalive.int().is_some_and(|seconds| seconds > hold) {
        keepalive.invalid(errors, format!("must be at most holdSeconds, {hold}"));
    }
    timers.at("connectRetrySeconds").within(errors, 1..=65_535);
}

fn as_numbers(spec: &At<'_>, errors: &mut FieldErrors) {
    spec.at("allowasIn").within(errors, 0..=10);
    if spec.at("localAs").is_set() {
        bgp_policy::as_number(&spec.at("localAs.asn"), errors);
    }
    let role = spec.at("role");
    if !role.is_set() {
        let strict = spec.at("strictRole");
        if strict.is_true() {
            strict.forbidden(errors, "may not be given without role");
        }
        return;
    }
    role.one_of(errors, &ROLES);
    if spec.at("remoteAs").text() == "internal" {
        role.forbidden(errors, "only an external neighbor has one (RFC 9234)");
    }
}

fn neighbor(spec: &At<'_>, errors: &mut FieldErrors) {
    let (address, interface) = (spec.at("address"), spec.at("interface"));
    match (address.is_set(), interface.is_set()) {
        (true, true) => interface.forbidden(errors, "may not be given with address"),
        (false, false) => address.missing(
            errors,
            "give address, or interface for an unnumbered neighbor",
        ),
        (true, false) => match address.text().parse::<IpAddr>() {
            Ok(ip) => host(&address, ip, errors),
            Err(_) => checks::ip(&address, errors),
        },
        (false, true) => {
            let name = interface.text();
            let sound = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
            if name.is_empty() || name.len() > INTERFACE_MAX || !name.chars().all(sound) {
                interface.invalid(
                    errors,
                    "must be the name of an interface, at most 15 characters",
                );
            }
        }
    }
}

/// An address that one host has, wherever the packet is sent from.
fn host(address: &At<'_>, ip: IpAddr, errors: &mut FieldErrors) {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
        address.invalid(errors, "must be the address of a host");
    } else if link_local && ip.is_ipv6() {
        address.invalid(errors, "is on one link only; give interface instead");
    }
}

fn remote_as(given: &At<'_>, errors: &mut FieldErrors) {
    let number = match given.value() {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text == "external" || text == "internal" => return,
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let fits =
        |number| i64::try_from(number).is_ok_and(|one| bgp_policy::AS_NUMBERS.contains(&one));
    if !number.is_some_and(fits) {
        given.invalid(errors, "must be an AS number, \"external\" or \"internal\"");
    }
}
