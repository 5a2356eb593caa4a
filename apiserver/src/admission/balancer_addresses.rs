//! Addresses that Services of type LoadBalancer ask for are of a pool: refused with the field, where
//! there are pools and none has them. Without any pool somebody else may give addresses, or pools
//! come later; then the load balancer's controller says in events what it cannot give.

use std::net::IpAddr;

use async_trait::async_trait;
use peapod_api::net::{AddressRange, GROUP, LOAD_BALANCER_CLASS, LOAD_BALANCER_IPS};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, all};
use crate::api::Api;
use crate::registry::{FieldError, FieldErrors, value};
use crate::status::{Result, Status};

pub struct BalancerAddresses;

#[async_trait]
impl Plugin for BalancerAddresses {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let written = matches!(write.operation, Operation::Create | Operation::Update);
        if !written || !write.is_on("", "services") {
            return Ok(());
        }
        let asked = asked(object);
        // What was let pass once does not keep a Service from being changed in other ways.
        if asked.is_empty() || write.old.is_some_and(|old| self::asked(old) == asked) {
            return Ok(());
        }
        let errors = strangers(&asked, &all(api, GROUP, "loadbalancerpools"));
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Status::invalid("", "Service", write.name, &errors)),
        }
    }
}

/// What a Service asks for, if its load balancer is ours to give: fields and addresses. What is no
/// address is for others to refuse.
fn asked(service: &Value) -> Vec<(String, IpAddr)> {
    let spec = &service["spec"];
    let class = spec["loadBalancerClass"].as_str();
    let ours = class.is_none_or(|class| class == LOAD_BALANCER_CLASS);
    if spec["type"] != "LoadBalancer" || !ours {
        return Vec::new();
    }
    let annotation = service["metadata"]["annotations"][LOAD_BALANCER_IPS].as_str();
    let (field, text) = match annotation {
        Some(text) => (format!("metadata.annotations[{LOAD_BALANCER_IPS}]"), text),
        None => (
            "spec.loadBalancerIP".to_owned(),
            value::text(spec, "loadBalancerIP"),
        ),
    };
    let addresses = text.split(',').filter_map(|one| one.trim().parse().ok());
    addresses.map(|ip| (field.clone(), ip)).collect()
}

/// Those of them that no pool has.
fn strangers(asked: &[(String, IpAddr)], pools: &[Value]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let ranges: Vec<AddressRange> = pools
        .iter()
        .flat_map(|pool| value::list(pool, "spec.addresses"))
        .filter_map(|range| range.as_str()?.parse().ok())
        .collect();
    if pools.is_empty() {
        return errors;
    }
    for (field, ip) in asked {
        if !ranges.iter().any(|range| range.contains(*ip)) {
            let why = "is of no LoadBalancerPool (kubectl get loadbalancerpools)";
            errors.push(FieldError::invalid(field, ip.to_string(), why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusals(service: Value, pools: &[Value]) -> Vec<String> {
        let errors = strangers(&asked(&service), pools);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn strange_addresses_are_refused_with_the_field() {
        let pool = json!({"spec": {"addresses": ["192.0.2.8/29", "2001:db8::1-2001:db8::9"]}});
        let pools = [pool];
        let by_field = |ip: &str| json!({"spec": {"type": "LoadBalancer", "loadBalancerIP": ip}});
        assert_eq!(refusals(by_field("192.0.2.9"), &pools), [""; 0]);
        assert_eq!(
            refusals(by_field("192.0.2.1"), &pools),
            ["spec.loadBalancerIP"]
        );
        assert_eq!(
            refusals(by_field("192.0.2.1"), &[]),
            [""; 0],
            "no pools at all"
        );
        let annotated = json!({
            "metadata": {"annotations": {LOAD_BALANCER_IPS: "192.0.2.9, 2001:db8::a"}},
            "spec": {"type": "LoadBalancer"}});
        let field = "metadata.annotations[net.peapod.dev/load-balancer-ips]";
        assert_eq!(refusals(annotated.clone(), &pools), [field]);
        for (key, other) in [
            ("loadBalancerClass", "example.com/lb"),
            ("type", "ClusterIP"),
        ] {
            let mut service = annotated.clone();
            service["spec"][key] = json!(other);
            assert_eq!(refusals(service, &pools), [""; 0], "not ours to give");
        }
    }
}
