//! `net.peapod.dev/v1 LoadBalancerPool` and `LoadBalancerAddress`: addresses for Services of type
//! LoadBalancer, and who has which.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use peapod_api::net::{AddressRange, GROUP, LoadBalancerAddress, LoadBalancerPool, address_name};
use peapod_schema::graph::Graph;
use peapod_schema::structural;
use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, checks, value};

/// Ranges of one pool.
const RANGES_MAX: usize = 256;
/// Services that share one address.
const SHARERS_MAX: usize = 256;

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![pool(), address()]
}

fn pool() -> Kind {
    Kind::cluster(GROUP, "v1", "LoadBalancerPool", "loadbalancerpools")
        .short_names(&["lbp"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Addresses", "string", |pool, _| {
                let ranges = value::list(pool, "spec.addresses").iter();
                let ranges: Vec<&str> = ranges.filter_map(Value::as_str).collect();
                ranges.join(",").into()
            }),
            Column::path("Used", "integer", "status.addresses.used"),
            Column::path("Free", "integer", "status.addresses.free"),
            Column::path("Auto Assign", "boolean", "spec.autoAssign").wide(),
            Column::age(),
        ])
        .rules(Pools)
}

fn address() -> Kind {
    Kind::cluster(GROUP, "v1", "LoadBalancerAddress", "loadbalanceraddresses")
        .short_names(&["lba"])
        .with_generation()
        .selectable(&["spec.pool"])
        .columns(vec![
            Column::name(),
            Column::path("Address", "string", "spec.address"),
            Column::path("Pool", "string", "spec.pool"),
            Column::computed("Services", "string", |address, _| {
                let services = value::list(address, "spec.services").iter();
                let name = |one: &Value| {
                    format!(
                        "{}/{}",
                        value::text(one, "namespace"),
                        value::text(one, "name")
                    )
                };
                services.map(name).collect::<Vec<_>>().join(",").into()
            }),
            Column::age(),
        ])
        .rules(Addresses)
}

/// Adds the shapes of the kinds, which their Rust types have.
pub fn add_shapes(graph: &mut Graph) {
    static POOL: LazyLock<Value> = LazyLock::new(|| super::shape_of(&LoadBalancerPool::crd()));
    static ADDRESS: LazyLock<Value> =
        LazyLock::new(|| super::shape_of(&LoadBalancerAddress::crd()));
    structural::add_kind(graph, "net.v1.LoadBalancerPool", &POOL);
    structural::add_kind(graph, "net.v1.LoadBalancerAddress", &ADDRESS);
}

struct Pools;

impl Rules for Pools {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let addresses = spec.at("addresses");
        if addresses.required(errors) && addresses.items().count() > RANGES_MAX {
            addresses.invalid(errors, format!("must have at most {RANGES_MAX} items"));
        }
        let mut before: Vec<AddressRange> = Vec::new();
        for item in addresses.items() {
            match item.text().parse::<AddressRange>() {
                Err(fault) => item.invalid(errors, fault.to_string()),
                Ok(range) if !is_for_services(&range) => item.invalid(
                    errors,
                    "must be unicast addresses, and not loopback or link-local ones",
                ),
                Ok(range) if before.iter().any(|other| other.overlaps(&range)) => {
                    item.invalid(errors, "overlaps with another item");
                }
                Ok(range) => before.push(range),
            }
        }
        for selector in ["serviceSelector", "namespaceSelector", "nodeSelector"] {
            let selector = spec.at(selector);
            if selector.is_set() {
                checks::label_selector(&selector, errors);
            }
        }
    }
}

fn is_for_services(range: &AddressRange) -> bool {
    let unfit = super::ip_pool::NOT_UNICAST.iter();
    let mut unfit = unfit.filter_map(|text| text.parse::<AddressRange>().ok());
    !unfit.any(|unfit| unfit.overlaps(range))
}

struct Addresses;

impl Rules for Addresses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let address = root.at("spec.address");
        match address.text().parse::<IpAddr>() {
            Err(_) => checks::ip(&address, errors),
            Ok(ip) => {
                let name = root.at("metadata.name");
                let wanted = address_name(ip);
                if name.text() != wanted {
                    name.invalid(errors, format!("must be {wanted:?}, after the address"));
                }
            }
        }
        root.at("spec.pool").required(errors);
        let services = root.at("spec.services");
        services.required(errors);
        let count = services.items().count();
        if count > SHARERS_MAX {
            services.invalid(errors, format!("must have at most {SHARERS_MAX} items"));
        }
        if count > 1 && root.at("spec.sharingKey").is_empty() {
            root.at("spec.sharingKey")
                .missing(errors, "services share an address under a key only");
        }
        ports_differ(&services, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.address").unchanged(old, errors);
    }
}

/// Demands that no port is of two services.
fn ports_differ(services: &At<'_>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for service in services.items() {
        for field in ["namespace", "name"] {
            service.at(field).required(errors);
        }
        let ports = service.at("ports");
        for port in ports.items() {
            if !seen.insert(port.text().to_owned()) {
                port.duplicate(errors);
            }
        }
    }
}
