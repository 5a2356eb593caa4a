//! `fieldRef` and `resourceFieldRef`: a pod's own fields as text, for variables and files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

use super::Missing;
use crate::core::qos::{self, Amounts};

/// What is known of a pod's place beside its spec.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// What the node can give: the limit of what has none.
    pub allocatable: Amounts,
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(IpAddr::to_string).unwrap_or_default()
}

/// A map as the downward API writes it: `key="value"`, a line each.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    quoted.collect::<Vec<_>>().join("\n")
}

/// `metadata.labels['KEY']`: the key, if the path is of that shape.
fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

/// The text of a pod's field.
pub fn field(pod: &Pod, path: &str, place: &Place) -> Result<String, Missing> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let get = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default()
    };
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(get(&meta.labels, key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(get(&meta.annotations, key));
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => first(&place.host_ips),
        "status.hostIPs" => join(&place.host_ips),
        "status.podIP" => first(&place.pod_ips),
        "status.podIPs" => join(&place.pod_ips),
        _ => return Err(Missing(format!("unsupported fieldPath: {path}"))),
    })
}

/// The text of a container's request or limit, in units of the divisor, rounded up.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    place: &Place,
) -> Result<String, Missing> {
    let unsupported = || {
        Missing(format!(
            "unsupported container resource: {}",
            selector.resource
        ))
    };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let limits = qos::amounts(resources.and_then(|r| r.limits.as_ref()));
    let requests = qos::amounts(resources.and_then(|r| r.requests.as_ref()));
    let none = Quantity::from_units(0);
    let amount = match kind {
        "limits" => limits
            .get(name)
            .filter(|q| !q.is_zero())
            .or(place.allocatable.get(name)),
        "requests" => requests.get(name).or(limits.get(name)),
        _ => return Err(unsupported()),
    };
    let amount = amount.copied().unwrap_or(none);
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|text| Quantity::try_from(text).ok());
    let divisor = divisor.filter(|q| !q.is_zero());
    if name == "cpu" {
        let by = divisor.map_or(1000, Quantity::milli).max(1);
        return Ok(ceil_div(amount.milli(), by).to_string());
    }
    let by = divisor.map_or(1, Quantity::units).max(1);
    Ok(ceil_div(amount.units(), by).to_string())
}

fn ceil_div(value: i64, by: i64) -> i64 {
    value / by + i64::from(value % by > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [], "nodeName": "n1"},
        }))
        .unwrap();
        let place = Place {
            pod_ips: vec!["10.0.0.1".parse().unwrap()],
            ..Place::default()
        };
        let get = |path| field(&pod, path, &place).unwrap();
        assert_eq!(get("metadata.name"), "web");
        assert_eq!(get("metadata.labels['a']"), "1");
        assert_eq!(get("metadata.labels['none']"), "");
        assert_eq!(get("metadata.labels"), "a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!(get("status.podIP"), "10.0.0.1");
        assert!(field(&pod, "spec.containers", &place).is_err());
    }

    #[test]
    fn resources_round_up() {
        let container: Container = serde_json::from_value(json!({
            "name": "a",
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}},
        }))
        .unwrap();
        let get = |resource: &str, divisor: &str| {
            let selector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor}));
            let allocatable =
                BTreeMap::from([("memory".to_owned(), Quantity::from_bytes(1 << 30))]);
            let place = Place {
                allocatable,
                ..Place::default()
            };
            super::resource(&container, &selector.unwrap(), &place).unwrap()
        };
        assert_eq!(get("limits.cpu", "0"), "2");
        assert_eq!(get("limits.cpu", "1m"), "1500");
        assert_eq!(get("requests.memory", "1Mi"), "100");
        assert_eq!(get("limits.memory", "1Gi"), "1");
    }
}
