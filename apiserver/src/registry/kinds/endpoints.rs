//! `v1 Endpoints`

use peapod_api::names;
use serde_json::Value;

use crate::registry::cells;
use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

/// How many endpoints a table shows.
const SHOWN_MAX: usize = 3;

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Endpoints", "endpoints")
        .short_names(&["ep"])
        .deprecated("v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .create_on_update()
        .columns(vec![
            Column::name(),
            Column::computed("Endpoints", "string", |object, _| addresses(object)),
            Column::age(),
        ])
        .rules(EndpointLists)
}

struct EndpointLists;

impl Rules for EndpointLists {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        for subset in root.at("subsets").items() {
            let lists = [subset.at("addresses"), subset.at("notReadyAddresses")];
            if lists.iter().all(At::is_empty) {
                let why = "must specify `addresses` or `notReadyAddresses`";
                subset.missing(errors, why);
            }
            for address in lists.iter().flat_map(|list| list.items()) {
                checks::ip(&address.at("ip"), errors);
                address.at("hostname").follows(errors, names::dns_label);
            }
            let ports = subset.at("ports");
            let many = ports.value().as_array().is_some_and(|list| list.len() > 1);
            for port in ports.items() {
                if many {
                    port.at("name").required(errors);
                }
                port.at("name").follows(errors, names::dns_label);
                checks::port(&port.at("port"), errors);
                port.at("protocol")
                    .require_one_of(errors, checks::PROTOCOLS);
            }
        }
    }
}

fn addresses(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in value::list(object, "subsets") {
        let ports = value::list(subset, "ports");
        for address in value::list(subset, "addresses") {
            let ip = value::text(address, "ip");
            let host = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            let number = |port| value::integer(port, "port").unwrap_or(0);
            match ports.is_empty() {
                true => all.push(ip.to_owned()),
                false => all.extend(ports.iter().map(|port| format!("{host}:{}", number(port)))),
            }
        }
    }
    shortened(all)
}

/// The texts, at most three of them.
pub(super) fn shortened(all: Vec<String>) -> Value {
    let more = all.len().saturating_sub(SHOWN_MAX);
    let shown = all
        .iter()
        .take(SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    match more {
        0 => cells::or_none(shown),
        more => format!("{shown} + {more} more...").into(),
    }
}
