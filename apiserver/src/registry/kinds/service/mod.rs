//! `v1 Service`

mod allocation;
mod validation;

use std::collections::BTreeSet;

use peapod_api::names;
use serde_json::{Value, json};

use crate::registry::cells::{self, NONE};
use crate::registry::claims::{CLUSTER_IP, Claim, NODE_PORT, Pools};
use crate::registry::{Column, FieldErrors, Kind, Rules, Subresource, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Service", "services")
        .short_names(&["svc"])
        .categories(&["all"])
        .name_rule(names::dns_1035_label)
        .with_status()
        .subresource(Subresource::Proxy("ServiceProxyOptions"))
        .selectable(&["spec.clusterIP", "spec.type"])
        .columns(vec![
            Column::name(),
            Column::path("Type", "string", "spec.type"),
            Column::computed("Cluster-IP", "string", |service, _| {
                match value::list(service, "spec.clusterIPs").first() {
                    Some(address) => address.clone(),
                    None => NONE.into(),
                }
            }),
            Column::computed("External-IP", "string", |service, _| {
                external(service).into()
            }),
            Column::computed("Port(s)", "string", |service, _| ports(service)),
            Column::age(),
            Column::computed("Selector", "string", |service, _| {
                cells::or_none(cells::labels(value::map(service, "spec.selector")))
            })
            .wide(),
        ])
        .rules(Services)
}

struct Services;

impl Rules for Services {
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = value::at_mut(object, "spec") else {
            return;
        };
        let kind = Type::of(spec);
        match value::text(spec, "sessionAffinity") {
            "ClientIP" => {
                value::set_default(
                    spec,
                    "sessionAffinityConfig.clientIP.timeoutSeconds",
                    10_800,
                );
            }
            "None" => {
                value::remove(spec, "sessionAffinityConfig");
            }
            _ => {}
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            let unset = matches!(&port["targetPort"], Value::Null)
                || port["targetPort"] == 0
                || port["targetPort"] == "";
            if unset {
                port["targetPort"] = port["port"].clone();
            }
        }
        if kind.has_address() {
            value::set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        let external = !value::list(spec, "externalIPs").is_empty();
        if kind.has_node_ports() || (kind == Type::ClusterIp && external) {
            value::set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == Type::LoadBalancer {
            value::set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        allocation::carry_over(&mut new["spec"], &old["spec"]);
        allocation::drop_what_the_type_lost(&mut new["spec"], &old["spec"]);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validation::validate(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validation::validate_update(new, old, errors);
    }

    fn has_claims(&self) -> bool {
        true
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        let addresses = value::list(object, "spec.clusterIPs").iter();
        let addresses = addresses.filter_map(Value::as_str);
        let addresses = addresses.filter(|address| !matches!(*address, "" | "None"));
        let mut claims: BTreeSet<Claim> = addresses.map(|a| claim(CLUSTER_IP, a)).collect();
        for port in value::list(object, "spec.ports") {
            claims.extend(port_claim(port, "nodePort"));
        }
        claims.extend(port_claim(&object["spec"], "healthCheckNodePort"));
        claims.into_iter().collect()
    }

    fn allocate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
        pools: &mut dyn Pools,
        errors: &mut FieldErrors,
    ) {
        let old = old.map(|old| &old["spec"]);
        allocation::addresses(&mut object["spec"], old, pools, errors);
        allocation::ports(&mut object["spec"], old, pools, errors);
    }
}

fn claim(pool: &'static str, item: impl ToString) -> Claim {
    let item = item.to_string();
    Claim { pool, item }
}

fn port_claim(object: &Value, field: &str) -> Option<Claim> {
    let port = value::integer(object, field).filter(|port| *port != 0)?;
    Some(claim(NODE_PORT, port))
}

/// `spec.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl Type {
    fn of(spec: &Value) -> Self {
        match value::text(spec, "type") {
            "NodePort" => Self::NodePort,
            "LoadBalancer" => Self::LoadBalancer,
            "ExternalName" => Self::ExternalName,
            _ => Self::ClusterIp,
        }
    }

    fn has_address(self) -> bool {
        self != Self::ExternalName
    }

    fn has_node_ports(self) -> bool {
        matches!(self, Self::NodePort | Self::LoadBalancer)
    }
}

/// Whether the service has no address of its own because it asks for none.
fn is_headless(spec: &Value) -> bool {
    value::text(spec, "clusterIP") == "None"
        || value::list(spec, "clusterIPs")
            .first()
            .is_some_and(|first| first == "None")
}

/// Whether a health check port of its own tells which nodes have endpoints.
fn needs_health_check(spec: &Value) -> bool {
    Type::of(spec) == Type::LoadBalancer && value::text(spec, "externalTrafficPolicy") == "Local"
}

fn external(service: &Value) -> String {
    let own = value::list(service, "spec.externalIPs")
        .iter()
        .filter_map(Value::as_str);
    let own: Vec<&str> = own.collect();
    match Type::of(&service["spec"]) {
        Type::ExternalName => value::text(service, "spec.externalName").to_owned(),
        Type::LoadBalancer => {
            let ingress = value::list(service, "status.loadBalancer.ingress").iter();
            let ingress = ingress.map(|entry| match value::text(entry, "ip") {
                "" => value::text(entry, "hostname"),
                ip => ip,
            });
            match ingress.chain(own).collect::<Vec<_>>().join(",") {
                all if all.is_empty() => "<pending>".to_owned(),
                all => all,
            }
        }
        _ if own.is_empty() => NONE.to_owned(),
        _ => own.join(","),
    }
}

fn ports(service: &Value) -> Value {
    let ports = value::list(service, "spec.ports").iter().map(|port| {
        let number = value::integer(port, "port").unwrap_or(0);
        let protocol = value::text(port, "protocol");
        match value::integer(port, "nodePort") {
            Some(node) if node != 0 => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    cells::or_none(ports.collect::<Vec<_>>().join(","))
}
