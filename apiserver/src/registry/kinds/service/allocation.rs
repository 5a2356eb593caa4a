//! What a Service is given: its families, its addresses, its node ports. What it has it keeps.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Type, claim, is_headless, needs_health_check};
use crate::registry::claims::{CLUSTER_IP, Family, NODE_PORT, Pools};
use crate::registry::{FieldError, FieldErrors, value};

/// Fills what a client left out of an update because it does not know of it.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let (now, before) = (Type::of(new), Type::of(old));
    if now.has_address() && before.has_address() {
        let unset = value::text(new, "clusterIP").is_empty();
        if unset && value::list(new, "clusterIPs").is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                value::set_or_remove(new, field, old.get(field).cloned());
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if value::at(new, field).is_none() {
                value::set_or_remove(new, field, old.get(field).cloned());
            }
        }
    }
    if now.has_node_ports() && before.has_node_ports() {
        carry_ports_over(new, old);
    }
    if needs_health_check(new) && needs_health_check(old) {
        let unset = value::integer(new, "healthCheckNodePort").unwrap_or(0) == 0;
        if unset {
            let kept = old.get("healthCheckNodePort").cloned();
            value::set_or_remove(new, "healthCheckNodePort", kept);
        }
    }
}

fn carry_ports_over(new: &mut Value, old: &Value) {
    let taken: Vec<i64> = node_ports(new).collect();
    let ports = new.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        if value::integer(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let same =
            |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        let before = value::list(old, "ports").iter().find(same);
        let kept = before.and_then(|before| value::integer(before, "nodePort"));
        if let Some(kept) = kept.filter(|kept| *kept != 0 && !taken.contains(kept)) {
            port["nodePort"] = kept.into();
        }
    }
}

fn node_ports(spec: &Value) -> impl Iterator<Item = i64> {
    let ports = value::list(spec, "ports").iter();
    ports
        .filter_map(|port| value::integer(port, "nodePort"))
        .filter(|port| *port != 0)
}

/// Drops what the new type cannot have, where the client only carried it along.
pub(super) fn drop_what_the_type_lost(new: &mut Value, old: &Value) {
    let (now, before) = (Type::of(new), Type::of(old));
    if now == before {
        return;
    }
    let mut drop = |field: &str| {
        if new.get(field) == old.get(field) {
            value::remove(new, field);
        }
    };
    if !now.has_address() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            drop(field);
        }
        drop("internalTrafficPolicy");
    }
    if now != Type::LoadBalancer {
        drop("allocateLoadBalancerNodePorts");
        drop("loadBalancerClass");
        drop("healthCheckNodePort");
    }
    if now != Type::ExternalName {
        drop("externalName");
    }
    if !now.has_node_ports() {
        if value::list(old, "externalIPs").is_empty() {
            drop("externalTrafficPolicy");
        }
        let before: Vec<i64> = node_ports(old).collect();
        let ports = new.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            let node = value::integer(port, "nodePort");
            if node.is_some_and(|node| before.contains(&node)) {
                value::remove(port, "nodePort");
            }
        }
    }
}

/// Gives families and addresses.
pub(super) fn addresses(
    spec: &mut Value,
    old: Option<&Value>,
    pools: &mut dyn Pools,
    errors: &mut FieldErrors,
) {
    if Type::of(spec) == Type::ExternalName {
        return;
    }
    sync_first_address(spec, old);
    let Some(families) = families(spec, old, pools, errors) else {
        return;
    };
    spec["ipFamilies"] = families.iter().map(|family| name(*family)).collect();
    if is_headless(spec) {
        spec["clusterIP"] = "None".into();
        spec["clusterIPs"] = json!(["None"]);
        return;
    }
    let mut given: Vec<Value> = value::list(spec, "clusterIPs").to_vec();
    given.truncate(families.len());
    let held = old.map_or(&[][..], |old| value::list(old, "clusterIPs"));
    for (index, family) in families.iter().enumerate() {
        match given
            .get(index)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
        {
            Some(text) if held.iter().any(|one| one == text) => {}
            // It may not change, which validation tells.
            Some(_) if held.get(index).is_some() => {}
            Some(text) => check_wanted(text, &given, pools, errors),
            None => match pools.pick_address(*family) {
                Some(address) if index < given.len() => given[index] = address.to_string().into(),
                Some(address) => given.push(address.to_string().into()),
                None => {
                    let why = format!(
                        "failed to allocate a serviceIP: no {} address is free",
                        name(*family)
                    );
                    let path = "spec.clusterIPs";
                    return errors.push(FieldError::invalid(path, given.clone(), why));
                }
            },
        }
    }
    if let Some(first) = given.first() {
        spec["clusterIP"] = first.clone();
    }
    spec["clusterIPs"] = Value::Array(given);
}

/// `clusterIP` and the first of `clusterIPs` say the same; the one that was changed rules.
fn sync_first_address(spec: &mut Value, old: Option<&Value>) {
    let one = value::text(spec, "clusterIP").to_owned();
    let many = value::list(spec, "clusterIPs");
    let before = |field: &str| old.and_then(|old| old.get(field));
    let changed = !one.is_empty()
        && before("clusterIP").is_some_and(|before| *before != one)
        && before("clusterIPs") == spec.get("clusterIPs");
    if many.is_empty() && !one.is_empty() {
        spec["clusterIPs"] = json!([one]);
    } else if changed {
        // Who only knows of the one changed it.
        spec["clusterIPs"][0] = one.into();
    } else if one.is_empty() && old.is_none() && !many.is_empty() {
        spec["clusterIP"] = many[0].clone();
    }
}

fn check_wanted(text: &str, given: &[Value], pools: &dyn Pools, errors: &mut FieldErrors) {
    // Text that is no address is validation's to tell.
    let Ok(address) = text.parse::<IpAddr>() else {
        return;
    };
    let fault = match (
        pools.holds_address(address),
        pools.is_taken(&claim(CLUSTER_IP, text)),
    ) {
        (false, _) => "the provided IP is not in the valid range of service addresses",
        (true, true) => "provided IP is already allocated",
        (true, false) => return,
    };
    let why = format!("failed to allocate IP {text}: {fault}");
    errors.push(FieldError::invalid("spec.clusterIPs", given.to_vec(), why));
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn parse(name: &str) -> Option<Family> {
    match name {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

fn family_of(text: &str) -> Option<Family> {
    Some(match text.parse().ok()? {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    })
}

/// The families that the service has, and its policy; none when they make no sense, which
/// validation tells.
fn families(
    spec: &mut Value,
    old: Option<&Value>,
    pools: &dyn Pools,
    errors: &mut FieldErrors,
) -> Option<Vec<Family>> {
    let of_cluster = pools.families();
    let asked = value::list(spec, "ipFamilies")
        .iter()
        .filter_map(Value::as_str);
    let mut wanted: Vec<Family> = asked.filter_map(parse).collect();
    if wanted.is_empty() {
        let addresses = value::list(spec, "clusterIPs")
            .iter()
            .filter_map(Value::as_str);
        wanted = addresses.filter_map(family_of).collect();
    }
    for family in &wanted {
        if !of_cluster.contains(family) {
            let why = "not configured on this cluster";
            let families = spec["ipFamilies"].clone();
            errors.push(FieldError::invalid("spec.ipFamilies", families, why));
            return None;
        }
    }
    let bare = is_headless(spec) && value::map(spec, "selector").is_none_or(|map| map.is_empty());
    if value::at(spec, "ipFamilyPolicy").is_none() {
        let policy = match (wanted.len() > 1, bare && wanted.is_empty() && old.is_none()) {
            (false, false) => "SingleStack",
            _ => "RequireDualStack",
        };
        spec["ipFamilyPolicy"] = policy.into();
    }
    let policy = value::text(spec, "ipFamilyPolicy").to_owned();
    if policy == "RequireDualStack" && of_cluster.len() < 2 && !bare {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        return None;
    }
    if wanted.is_empty() {
        wanted.extend(of_cluster.first());
    }
    if policy != "SingleStack" {
        let others = of_cluster.iter().filter(|family| !wanted.contains(family));
        let others: Vec<Family> = others.copied().collect();
        wanted.extend(others);
    } else if wanted.len() > 1 {
        // Back to one family: the first stays.
        wanted.truncate(1);
    }
    Some(wanted)
}

/// Gives node ports and the port for health checks.
pub(super) fn ports(
    spec: &mut Value,
    old: Option<&Value>,
    pools: &mut dyn Pools,
    errors: &mut FieldErrors,
) {
    let kind = Type::of(spec);
    let unwanted = spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    let allocates = kind.has_node_ports() && !(kind == Type::LoadBalancer && unwanted);
    let held: Vec<i64> = old.map(|old| node_ports(old).collect()).unwrap_or_default();
    let before = spec.clone();
    let mut given: Vec<(Value, i64)> = Vec::new();
    let list = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in list.into_iter().flatten().enumerate() {
        let number = value::integer(port, "nodePort").unwrap_or(0);
        let field = format!("spec.ports[{index}].nodePort");
        if number != 0 {
            let shared = given.iter().any(|(_, other)| *other == number);
            if kind.has_node_ports() && !held.contains(&number) && !shared {
                check_port(number, &field, pools, errors);
            }
            given.push((port["port"].clone(), number));
        } else if allocates {
            // One number for the same port of two protocols, as DNS wants it.
            let twin = twin(&given, port, &before);
            let Some(chosen) = twin.or_else(|| pools.pick_port().map(i64::from)) else {
                let why = "failed to allocate a nodePort: range is full";
                return errors.push(FieldError::invalid(field, 0, why));
            };
            port["nodePort"] = chosen.into();
            given.push((port["port"].clone(), chosen));
        }
    }
    if needs_health_check(spec) && value::integer(spec, "healthCheckNodePort").unwrap_or(0) == 0 {
        match pools.pick_port() {
            Some(port) => spec["healthCheckNodePort"] = port.into(),
            None => {
                let why = "failed to allocate a nodePort: range is full";
                let path = "spec.healthCheckNodePort";
                errors.push(FieldError::invalid(path, 0, why));
            }
        }
    }
}

/// The node port of the same port in another protocol.
fn twin(given: &[(Value, i64)], port: &Value, spec: &Value) -> Option<i64> {
    let (_, number) = given.iter().find(|(number, _)| *number == port["port"])?;
    let clash = value::list(spec, "ports")
        .iter()
        .any(|other| other["nodePort"] == *number && other["protocol"] == port["protocol"]);
    (!clash).then_some(*number)
}

fn check_port(number: i64, field: &str, pools: &dyn Pools, errors: &mut FieldErrors) {
    let holds = u16::try_from(number).is_ok_and(|port| pools.holds_port(port));
    let why = match (holds, pools.is_taken(&claim(NODE_PORT, number))) {
        (false, _) => format!(
            "provided port is not in the valid range. The range of valid ports is {}",
            pools.port_range()
        ),
        (true, true) => "provided port is already allocated".to_owned(),
        (true, false) => return,
    };
    errors.push(FieldError::invalid(field, number, why));
}
