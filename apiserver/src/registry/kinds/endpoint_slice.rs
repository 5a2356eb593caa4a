//! `discovery.k8s.io/v1 EndpointSlice`

use std::collections::BTreeSet;
use std::net::IpAddr;

use peapod_api::names;
use serde_json::Value;

use super::endpoints::shortened;
use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .with_generation()
        .columns(vec![
            Column::name(),
            Column::path("AddressType", "string", "addressType"),
            Column::computed("Ports", "string", |slice, _| ports(slice)),
            Column::computed("Endpoints", "string", |slice, _| addresses(slice)),
            Column::age(),
        ])
        .rules(EndpointSlices)
}

struct EndpointSlices;

impl Rules for EndpointSlices {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let kind = root.at("addressType");
        kind.require_one_of(errors, TYPES);
        let endpoints = root.at("endpoints");
        at_most(&endpoints, ENDPOINTS_MAX, errors);
        for endpoint in endpoints.items() {
            let addresses = endpoint.at("addresses");
            if addresses.is_empty() {
                addresses.missing(errors, "must contain at least 1 address");
            }
            at_most(&addresses, ADDRESSES_MAX, errors);
            for address in addresses.items() {
                validate_address(&address, kind.text(), errors);
            }
            endpoint.at("hostname").follows(errors, names::dns_label);
            endpoint
                .at("nodeName")
                .follows(errors, names::dns_subdomain);
        }
        let ports = root.at("ports");
        at_most(&ports, PORTS_MAX, errors);
        let mut taken = BTreeSet::new();
        for port in ports.items() {
            let name = port.at("name");
            name.follows(errors, names::dns_label);
            if !taken.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
            checks::port(&port.at("port"), errors);
            port.at("protocol")
                .require_one_of(errors, checks::PROTOCOLS);
            port.at("appProtocol")
                .follows(errors, names::qualified_name);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("addressType").unchanged(old, errors);
    }
}

fn at_most(list: &At<'_>, max: usize, errors: &mut FieldErrors) {
    let count = list.value().as_array().map_or(0, Vec::len);
    if count > max {
        errors.push(crate::registry::FieldError::too_many(list, count, max));
    }
}

fn validate_address(address: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    match (kind, checks::parse_ip(address.text())) {
        ("FQDN", _) => address.follows(errors, names::dns_subdomain),
        ("IPv4", Some(IpAddr::V4(_))) | ("IPv6", Some(IpAddr::V6(_))) => {}
        ("IPv4", _) => address.invalid(errors, "must be a valid IPv4 address"),
        ("IPv6", _) => address.invalid(errors, "must be a valid IPv6 address"),
        _ => {}
    }
}

fn ports(slice: &Value) -> Value {
    let ports = value::list(slice, "ports").iter();
    let ports = ports.map(|port| match value::integer(port, "port") {
        Some(number) => number.to_string(),
        None => "*".to_owned(),
    });
    match ports.collect::<Vec<_>>() {
        none if none.is_empty() => "<unset>".into(),
        some => shortened(some),
    }
}

fn addresses(slice: &Value) -> Value {
    let endpoints = value::list(slice, "endpoints").iter();
    let addresses = endpoints.flat_map(|endpoint| value::list(endpoint, "addresses"));
    let addresses: Vec<String> = addresses
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match addresses.is_empty() {
        true => "<unset>".into(),
        false => shortened(addresses),
    }
}
