//! What a Service may say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use peapod_api::names;
use serde_json::{Value, json};

use super::{Type, is_headless};
use crate::registry::checks;
use crate::registry::{At, FieldError, FieldErrors, value};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
/// The kubelet's port, which a load balancer must not hide.
const KUBELET_PORT: i64 = 10250;

pub(super) fn validate(object: &Value, errors: &mut FieldErrors) {
    let root = At::root(object);
    let spec = root.at("spec");
    let kind = Type::of(spec.value());
    spec.at("type").require_one_of(errors, TYPES);
    validate_ports(&spec, kind, errors);
    checks::labels(&spec.at("selector"), errors);
    validate_affinity(&spec, errors);
    validate_addresses(&spec, kind, errors);
    validate_external(&spec, kind, errors);
    validate_traffic(&spec, kind, errors);
}

fn validate_ports(spec: &At<'_>, kind: Type, errors: &mut FieldErrors) {
    let ports = spec.at("ports");
    let count = ports.value().as_array().map_or(0, Vec::len);
    if count == 0 && kind != Type::ExternalName && !is_headless(spec.value()) {
        ports.missing(errors, "");
    }
    let (mut names_taken, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let mut node_ports = BTreeSet::new();
    for port in ports.items() {
        let name = port.at("name");
        if count > 1 && name.is_empty() {
            name.missing(errors, "");
        }
        name.follows(errors, names::dns_label);
        if !name.is_empty() && !names_taken.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        validate_port(&port, kind, errors);
        let protocol = port.at("protocol").text().to_owned();
        let number = port.at("port").int();
        if !taken.insert((protocol.clone(), number)) {
            let same = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(port, same));
        }
        let node = port.at("nodePort");
        let wanted = node.int().filter(|node| *node != 0);
        if wanted.is_some() && !node_ports.insert((protocol.clone(), wanted)) {
            let same = json!({"protocol": protocol, "nodePort": wanted});
            errors.push(FieldError::duplicate(node, same));
        }
    }
}

fn validate_port(port: &At<'_>, kind: Type, errors: &mut FieldErrors) {
    let number = port.at("port");
    if number
        .int()
        .is_none_or(|number| !(1..=65535).contains(&number))
    {
        number.invalid(errors, "must be between 1 and 65535, inclusive");
    }
    if kind == Type::LoadBalancer && number.int() == Some(KUBELET_PORT) {
        let why = "may not expose port 10250 externally since it is used by kubelet";
        number.invalid(errors, why);
    }
    port.at("protocol")
        .require_one_of(errors, checks::PROTOCOLS);
    checks::port_or_name(&port.at("targetPort"), errors);
    port.at("appProtocol")
        .follows(errors, names::qualified_name);
    let node = port.at("nodePort");
    if node.int().is_some_and(|node| node != 0) {
        if !kind.has_node_ports() {
            node.forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
        checks::port(&node, errors);
    }
}

fn validate_affinity(spec: &At<'_>, errors: &mut FieldErrors) {
    let affinity = spec.at("sessionAffinity");
    affinity.require_one_of(errors, &["ClientIP", "None"]);
    let seconds = spec.at("sessionAffinityConfig.clientIP.timeoutSeconds");
    if seconds.int().is_some_and(|s| s <= 0 || s > 86_400) {
        let why = "must be greater than 0 and less than 86400";
        seconds.invalid(errors, why);
    }
}

fn validate_addresses(spec: &At<'_>, kind: Type, errors: &mut FieldErrors) {
    let (one, many) = (spec.at("clusterIP"), spec.at("clusterIPs"));
    if kind == Type::ExternalName {
        if !many.is_empty() || !one.is_empty() {
            many.forbidden(errors, "may not be set for ExternalName services");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            let at = spec.at(field);
            if !at.is_empty() {
                at.forbidden(errors, "may not be set for ExternalName services");
            }
        }
        return;
    }
    for (index, address) in many.items().enumerate() {
        if index == 0 && address.text() != one.text() {
            let why = "first value must match `clusterIP`";
            address.invalid(errors, why);
        }
        if address.text() != "None" {
            checks::ip(&address, errors);
        } else if index > 0 {
            let why = "'None' must be the first and only value";
            address.invalid(errors, why);
        } else if kind.has_node_ports() {
            let kind = spec.at("type").text();
            address.invalid(
                errors,
                format!("may not be set to 'None' for {kind} services"),
            );
        }
    }
    if many.value().as_array().is_some_and(|list| list.len() > 2) {
        let why = "may only hold up to 2 values";
        many.invalid(errors, why);
    }
    validate_families(spec, errors);
}

fn validate_families(spec: &At<'_>, errors: &mut FieldErrors) {
    spec.at("ipFamilyPolicy").one_of(errors, FAMILY_POLICIES);
    let families = spec.at("ipFamilies");
    let mut taken = BTreeSet::new();
    for family in families.items() {
        family.one_of(errors, &["IPv4", "IPv6"]);
        if !taken.insert(family.text().to_owned()) {
            family.duplicate(errors);
        }
    }
    let addresses = spec.at("clusterIPs");
    for (address, family) in addresses.items().zip(families.items()) {
        let is = match checks::parse_ip(address.text()) {
            Some(IpAddr::V4(_)) => "IPv4",
            Some(IpAddr::V6(_)) => "IPv6",
            None => continue,
        };
        if is != family.text() {
            let why = format!(
                "expected an {} value as indicated by `ipFamilies`",
                family.text()
            );
            address.invalid(errors, why);
        }
    }
}

fn validate_external(spec: &At<'_>, kind: Type, errors: &mut FieldErrors) {
    if kind == Type::ExternalName {
        let name = spec.at("externalName");
        if name.required(errors)
            && let Err(fault) = names::dns_subdomain(name.text().trim_end_matches('.'))
        {
            name.invalid(errors, fault.to_string());
        }
    }
    for address in spec.at("externalIPs").items() {
        match checks::parse_ip(address.text()) {
            None => checks::ip(&address, errors),
            Some(ip) => {
                if let Some(why) = special(ip) {
                    address.invalid(errors, why);
                }
            }
        }
    }
    let ranges = spec.at("loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != Type::LoadBalancer {
        let why = "may only be used when `type` is 'LoadBalancer'";
        ranges.forbidden(errors, why);
    }
    ranges
        .items()
        .for_each(|range| checks::cidr(&range, errors));
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let at = spec.at(field);
        if at.is_set() && kind != Type::LoadBalancer {
            at.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
        }
    }
}

/// Why an address cannot be one of a service.
fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_unspecified() => Some("may not be unspecified (0.0.0.0 or ::)"),
        _ if ip.is_loopback() => Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        _ if link_local => Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        _ if ip.is_multicast() => {
            Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
        }
        _ => None,
    }
}

fn validate_traffic(spec: &At<'_>, kind: Type, errors: &mut FieldErrors) {
    let policies = ["Cluster", "Local"];
    let external = spec.at("externalTrafficPolicy");
    let has_external =
        kind.has_node_ports() || (kind == Type::ClusterIp && !spec.at("externalIPs").is_empty());
    if external.is_set() && !has_external {
        let why = "may only be set for externally-accessible services";
        external.invalid(errors, why);
    } else {
        external.one_of(errors, &policies);
    }
    spec.at("internalTrafficPolicy").one_of(errors, &policies);
    let health = spec.at("healthCheckNodePort");
    if health.int().is_some_and(|port| port != 0) && !super::needs_health_check(spec.value()) {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, why);
    }
    let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.at("trafficDistribution").one_of(errors, &supported);
}

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (now, before) = (Type::of(&new["spec"]), Type::of(&old["spec"]));
    if !now.has_address() || !before.has_address() {
        return;
    }
    let (given, held) = (
        value::list(new, "spec.clusterIPs"),
        value::list(old, "spec.clusterIPs"),
    );
    let root = At::root(new);
    for (index, address) in root.at("spec.clusterIPs").items().enumerate() {
        let before = held.get(index).and_then(Value::as_str).unwrap_or_default();
        if !before.is_empty() && address.text() != before {
            let why = match index {
                0 => "may not change once set",
                _ => "may not change once set, unless it is released",
            };
            errors.push(FieldError::invalid(address, given.to_vec(), why));
        }
    }
    if given.is_empty() && !held.is_empty() {
        let why = "primary clusterIP can not be unset";
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            given.to_vec(),
            why,
        ));
    }
    let families = |object| value::list(object, "spec.ipFamilies").first().cloned();
    if families(old).is_some() && families(new) != families(old) {
        let why = "may not change once set";
        let value = new["spec"]["ipFamilies"].clone();
        errors.push(FieldError::invalid("spec.ipFamilies[0]", value, why));
    }
}
