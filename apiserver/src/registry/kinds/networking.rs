//! `networking.k8s.io/v1`: ingresses, their classes, network policies, addresses of services.

use std::net::IpAddr;

use peapod_api::names;
use serde_json::Value;

use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells, value};

const GROUP: &str = "networking.k8s.io";

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![
        ingress_class(),
        ingress(),
        ip_address(),
        network_policy(),
        service_cidr(),
    ]
}

fn ingress_class() -> Kind {
    Kind::cluster(GROUP, "v1", "IngressClass", "ingressclasses")
        .with_generation()
        .columns(vec![
            Column::name(),
            Column::path("Controller", "string", "spec.controller"),
            Column::computed("Parameters", "string", |class, _| {
                match value::at(class, "spec.parameters") {
                    None => cells::NONE.into(),
                    Some(reference) => {
                        let part = |field| value::text(reference, field);
                        let group = match part("apiGroup") {
                            "" => String::new(),
                            group => format!(".{group}"),
                        };
                        format!("{}{group}/{}", part("kind"), part("name")).into()
                    }
                }
            }),
            Column::age(),
        ])
        .rules(IngressClasses)
}

struct IngressClasses;

impl Rules for IngressClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        At::root(object).at("spec.controller").required(errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.controller").unchanged(old, errors);
    }
}

fn ingress() -> Kind {
    Kind::namespaced(GROUP, "v1", "Ingress", "ingresses")
        .short_names(&["ing"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Class", "string", |ingress, _| {
                cells::or_none(value::text(ingress, "spec.ingressClassName"))
            }),
            Column::computed("Hosts", "string", |ingress, _| hosts(ingress).into()),
            Column::computed("Address", "string", |ingress, _| address(ingress).into()),
            Column::computed("Ports", "string", |ingress, _| {
                match value::list(ingress, "spec.tls").is_empty() {
                    true => "80".into(),
                    false => "80, 443".into(),
                }
            }),
            Column::age(),
        ])
        .rules(Ingresses)
}

fn hosts(ingress: &Value) -> String {
    let rules = value::list(ingress, "spec.rules").iter();
    let hosts = rules
        .map(|rule| value::text(rule, "host"))
        .filter(|host| !host.is_empty());
    match hosts.collect::<Vec<_>>().join(",") {
        all if all.is_empty() => "*".to_owned(),
        all => all,
    }
}

fn address(ingress: &Value) -> String {
    let entries = value::list(ingress, "status.loadBalancer.ingress").iter();
    let addresses = entries.map(|entry| match value::text(entry, "ip") {
        "" => value::text(entry, "hostname"),
        ip => ip,
    });
    addresses.collect::<Vec<_>>().join(",")
}

struct Ingresses;

impl Rules for Ingresses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let (rules, default) = (spec.at("rules"), spec.at("defaultBackend"));
        if rules.is_empty() && !default.is_set() {
            let why = "either `defaultBackend` or `rules` must be specified";
            spec.invalid(errors, why);
        }
        if default.is_set() {
            validate_backend(&default, errors);
        }
        spec.at("ingressClassName")
            .follows(errors, names::dns_subdomain);
        for rule in rules.items() {
            validate_host(&rule.at("host"), errors);
            let http = rule.at("http");
            let paths = http.at("paths");
            if http.is_set() {
                paths.required(errors);
            }
            for path in paths.items() {
                validate_path(&path, errors);
                validate_backend(&path.at("backend"), errors);
            }
        }
        for tls in spec.at("tls").items() {
            tls.at("hosts")
                .items()
                .for_each(|host| validate_host(&host, errors));
            tls.at("secretName").follows(errors, names::dns_subdomain);
        }
    }
}

fn validate_host(host: &At<'_>, errors: &mut FieldErrors) {
    if host.text().parse::<IpAddr>().is_ok() {
        return host.invalid(errors, "must be a DNS name, not an IP address");
    }
    let name = host.text().strip_prefix("*.").unwrap_or(host.text());
    if !host.is_empty()
        && let Err(fault) = names::dns_subdomain(name)
    {
        host.invalid(errors, fault.to_string());
    }
}

fn validate_path(path: &At<'_>, errors: &mut FieldErrors) {
    let (text, kind) = (path.at("path"), path.at("pathType"));
    if kind.is_empty() {
        return kind.missing(errors, "pathType must be specified");
    }
    kind.one_of(errors, &["Exact", "ImplementationSpecific", "Prefix"]);
    let anything = kind.text() == "ImplementationSpecific" && text.is_empty();
    if !anything && !text.text().starts_with('/') {
        text.invalid(errors, "must be an absolute path");
    }
}

fn validate_backend(backend: &At<'_>, errors: &mut FieldErrors) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => {
            let why = "cannot set both resource and service backends";
            backend.invalid(errors, why);
        }
        (false, false) => backend.missing(errors, "resource or service backend is required"),
        (false, true) => {}
        (true, false) => {
            service
                .at("name")
                .require_name(errors, names::dns_1035_label);
            let (name, number) = (service.at("port.name"), service.at("port.number"));
            match (name.is_empty(), number.int().unwrap_or(0) == 0) {
                (true, true) => service.missing(errors, "port name or number is required"),
                (false, false) => {
                    service.invalid(errors, "cannot set both port name & port number");
                }
                (false, true) => name.follows(errors, names::port_name),
                (true, false) => checks::port(&number, errors),
            }
        }
    }
}

fn network_policy() -> Kind {
    Kind::namespaced(GROUP, "v1", "NetworkPolicy", "networkpolicies")
        .short_names(&["netpol"])
        .with_generation()
        .columns(vec![
            Column::name(),
            Column::computed("Pod-Selector", "string", |policy, _| {
                cells::selector(policy, "spec.podSelector")
            }),
            Column::age(),
        ])
        .rules(NetworkPolicies)
}

struct NetworkPolicies;

impl Rules for NetworkPolicies {
    /// A policy is about ingress, and about egress when it says something of it.
    fn defaults(&self, object: &mut Value) {
        if value::list(object, "spec.policyTypes").is_empty() {
            let mut types = vec!["Ingress"];
            if !value::list(object, "spec.egress").is_empty() {
                types.push("Egress");
            }
            value::set(object, "spec.policyTypes", types);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        checks::label_selector(&spec.at("podSelector"), errors);
        for kind in spec.at("policyTypes").items() {
            kind.one_of(errors, &["Egress", "Ingress"]);
        }
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.at(rules).items() {
                rule.at("ports")
                    .items()
                    .for_each(|port| policy_port(&port, errors));
                rule.at(peers)
                    .items()
                    .for_each(|peer| policy_peer(&peer, errors));
            }
        }
    }
}

fn policy_port(port: &At<'_>, errors: &mut FieldErrors) {
    port.at("protocol").one_of(errors, checks::PROTOCOLS);
    let (start, end) = (port.at("port"), port.at("endPort"));
    if start.is_set() {
        checks::port_or_name(&start, errors);
    }
    if !end.is_set() {
        return;
    }
    match start.int() {
        None if !start.is_set() => {
            end.invalid(errors, "may not be specified when `port` is not specified");
        }
        None => {
            let why = "may not be specified when `port` is non-numeric";
            end.invalid(errors, why);
        }
        Some(start) if end.int() < Some(start) => {
            end.invalid(errors, "must be greater than or equal to `port`");
        }
        Some(_) => checks::port(&end, errors),
    }
}

fn policy_peer(peer: &At<'_>, errors: &mut FieldErrors) {
    let (pods, namespaces, block) = (
        peer.at("podSelector"),
        peer.at("namespaceSelector"),
        peer.at("ipBlock"),
    );
    match (block.is_set(), pods.is_set() || namespaces.is_set()) {
        (false, false) => peer.missing(errors, "must specify a peer"),
        (true, true) => peer.forbidden(errors, "may not specify both ipBlock and another peer"),
        (false, true) => {
            checks::label_selector(&pods, errors);
            checks::label_selector(&namespaces, errors);
        }
        (true, false) => {
            checks::cidr(&block.at("cidr"), errors);
            let outer: Option<ipnet::IpNet> = block.at("cidr").text().parse().ok();
            for except in block.at("except").items() {
                checks::cidr(&except, errors);
                let inner: Option<ipnet::IpNet> = except.text().parse().ok();
                if let (Some(outer), Some(inner)) = (outer, inner)
                    && (!outer.contains(&inner) || outer == inner)
                {
                    except.invalid(errors, format!("must be a strict subset of `cidr` {outer}"));
                }
            }
        }
    }
}

fn ip_address() -> Kind {
    Kind::cluster(GROUP, "v1", "IPAddress", "ipaddresses")
        .short_names(&["ip"])
        .name_rule(address_name)
        .with_generation()
        .selectable(&["spec.parentRef.resource"])
        .columns(vec![
            Column::name(),
            Column::computed("ParentRef", "string", |address, _| {
                let part = |field: &str| value::text(&address["spec"]["parentRef"], field);
                let parts = [
                    part("group"),
                    part("resource"),
                    part("namespace"),
                    part("name"),
                ];
                let parts = parts.into_iter().filter(|part| !part.is_empty());
                parts.collect::<Vec<_>>().join("/").into()
            }),
            Column::age(),
        ])
        .rules(IpAddresses)
}

fn address_name(name: &str) -> Result<(), names::NameError> {
    match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Ok(()),
        _ => Err(names::NameError(
            "must be a valid IP address in canonical form".to_owned(),
        )),
    }
}

struct IpAddresses;

impl Rules for IpAddresses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        for field in ["resource", "name"] {
            root.at("spec.parentRef").at(field).required(errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec").unchanged(old, errors);
    }
}

fn service_cidr() -> Kind {
    Kind::cluster(GROUP, "v1", "ServiceCIDR", "servicecidrs")
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("CIDRs", "string", |range, _| {
                let cidrs = value::list(range, "spec.cidrs").iter();
                cidrs
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(",")
                    .into()
            }),
            Column::age(),
        ])
        .rules(ServiceCidrs)
}

struct ServiceCidrs;

impl Rules for ServiceCidrs {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let cidrs = root.at("spec.cidrs");
        if cidrs.is_empty() {
            cidrs.missing(errors, "at least one CIDR required");
        }
        if cidrs.items().count() > 2 {
            return cidrs.invalid(errors, "may only hold up to 2 values");
        }
        let families = cidrs.items().map(|cidr| cidr.text().contains(':'));
        let families: Vec<bool> = families.collect();
        if families.len() == 2 && families[0] == families[1] {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            return cidrs.invalid(errors, why);
        }
        for cidr in cidrs.items() {
            checks::cidr(&cidr, errors);
            let net: Option<ipnet::IpNet> = cidr.text().parse().ok();
            let canonical = net.map(|net| net.trunc().to_string());
            if let Some(canonical) = canonical.filter(|net| net != cidr.text()) {
                cidr.invalid(errors, format!("must be in canonical form ({canonical:?})"));
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec.cidrs").unchanged(old, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranges_of_a_service_cidr_are_one_of_a_family() {
        for (cidrs, faults) in [
            (json!(["192.0.2.0/24", "2001:db8::/64"]), 0),
            (json!(["2001:db8::/64"]), 0),
            (json!([]), 1),
            (json!(["192.0.2.0/24", "198.51.100.0/24"]), 1),
            (json!(["192.0.2.0/24", "2001:db8::/64", "x"]), 1),
            (json!(["192.0.2.1/24", "2001:db8::/129"]), 2),
        ] {
            let object = json!({"spec": {"cidrs": cidrs}});
            let mut errors = FieldErrors::new();
            ServiceCidrs.validate(&object, &mut errors);
            assert_eq!(errors.iter().count(), faults, "{object}: {errors:?}");
        }
    }
}
