//! Where a Service's pods listen: from its ports and its EndpointSlices, without its address,
//! which this machine may not route.

use std::net::{IpAddr, SocketAddr};

use peapod_store::Scope;
use serde_json::Value;

use super::OutboundError;
use crate::api::Api;
use crate::registry::value;
use crate::storage;

/// The label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The ready endpoints behind a port of a Service.
///
/// # Errors
/// [`OutboundError`] when there is no such Service, port or endpoint.
pub fn endpoint(
    api: &Api,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, OutboundError> {
    let Some(service) = find(api, namespace, name) else {
        return Err(OutboundError::Config(format!(
            "service \"{name}\" not found"
        )));
    };
    let ports = value::list(&service, "spec.ports");
    let wanted = ports
        .iter()
        .find(|one| value::integer(one, "port") == Some(i64::from(port)));
    let Some(wanted) = wanted else {
        return Err(OutboundError::Config(format!(
            "no service port {port} found for service {name:?}"
        )));
    };
    let found = endpoints(&slices(api, namespace, name), value::text(wanted, "name"));
    match found.is_empty() {
        true => Err(OutboundError::Config(format!(
            "no endpoints available for service {name:?}"
        ))),
        false => Ok(found),
    }
}

fn find(api: &Api, namespace: &str, name: &str) -> Option<Value> {
    let services = api.registry.find("", "v1", "services")?;
    let key = storage::key(&services.kind, namespace, name).ok()?;
    serde_json::from_slice(&api.store.get(&key)?.value).ok()
}

fn slices(api: &Api, namespace: &str, service: &str) -> Vec<Value> {
    let Some(kind) = api
        .registry
        .find("discovery.k8s.io", "v1", "endpointslices")
    else {
        return Vec::new();
    };
    let snapshot = api.store.snapshot(&storage::range(&kind.kind));
    let entries = snapshot.range(Scope::Namespace(namespace), None);
    entries
        .filter(|entry| entry.meta.label(SERVICE_NAME) == Some(service))
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// The addresses of ready endpoints, with the port of a name.
fn endpoints(slices: &[Value], port: &str) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    for slice in slices {
        let ports = value::list(slice, "ports").iter();
        let mut ports = ports.filter(|one| value::text(one, "name") == port);
        let number = ports.next().and_then(|one| value::integer(one, "port"));
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
            continue;
        };
        for endpoint in value::list(slice, "endpoints") {
            if value::at(endpoint, "conditions.ready").and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let addresses = value::list(endpoint, "addresses")
                .iter()
                .filter_map(Value::as_str);
            let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
            out.extend(addresses.map(|address| SocketAddr::new(address, number)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_endpoints_of_the_named_port() {
        let slice = json!({
            "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"]},
            ],
        });
        let found: Vec<String> = endpoints(&[slice], "https")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.1:8443", "10.0.0.3:8443"]);
    }
}
