//! The objects that the figures are measured with.

use bytes::Bytes;
use serde_json::{Value, json};

/// The size of a pod's body, in bytes.
pub const POD_BYTES: usize = 2048;

/// Where pods are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A pod whose JSON has [`POD_BYTES`], with the fields that pods usually have.
pub fn pod(name: &str) -> Bytes {
    let lacking = POD_BYTES.saturating_sub(text(name, 0).len());
    Bytes::from(text(name, lacking))
}

fn text(name: &str, padding: usize) -> String {
    pod_with(name, &"x".repeat(padding)).to_string()
}

fn pod_with(name: &str, padding: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "figures", "pod-template-hash": "5d4f8c7b9d"},
            "annotations": {"figures.peapod.dev/padding": padding},
        },
        "spec": {
            "containers": [{
                "name": "app",
                "image": "registry.example/app:1.0",
                "ports": [{"containerPort": 8080, "name": "http"}],
                "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"memory": "256Mi"},
                },
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

/// A node that has room for a hundred of them.
pub fn node(index: usize) -> Bytes {
    let name = format!("hollow-{index}");
    let resources = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
            },
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    Bytes::from(node.to_string())
}
