//! Objects of the API that tests make.

use peapod_api::attach::PodRef;
use serde_json::{Value, json};

use super::Pod;
use super::api::Api;

/// Who a pod is.
pub fn reference(name: &str) -> PodRef {
    PodRef {
        namespace: "default".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
    }
}

/// The service `web` at 10.96.1.1 and fd00:10:96::11 with these ports, and further fields of its
/// spec.
pub fn put_web(api: &Api, ports: &Value, more: &Value) {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd00:10:96::11"],
            "ports": ports,
        },
    });
    for (key, value) in more.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    api.put(service);
}

/// Slices of both families of `web`: of pods, each with its node, and what their conditions say.
pub fn put_slices(
    api: &Api,
    name: &str,
    ports: &Value,
    endpoints: &[(&str, &Pod)],
    conditions: &Value,
) {
    for (at, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let endpoint = |(node, pod): &(&str, &Pod)| json!({"addresses": [pod.reply.ips[at]], "nodeName": node, "conditions": conditions});
        api.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", family.to_lowercase()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": family,
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": ports,
        }));
    }
}
