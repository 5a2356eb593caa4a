//! The objects that the figures are measured with.

use bytes::Bytes;
use serde_json::{Value, json};

/// Where pods are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// How large a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As one of a real workload: 5.7 KB as stored, a third of which the client sent.
    Usual,
    /// With one container and nothing else: 1.8 KB as stored.
    Small,
}

/// A pod of a name.
pub fn pod(name: &str, size: Size) -> Bytes {
    let spec = match size {
        Size::Small => json!({
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "registry.example/app:1.0"}],
        }),
        Size::Usual => usual(),
    };
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "figures",
                "app.kubernetes.io/instance": "figures-production",
                "pod-template-hash": "5d4f8c7b9d",
            },
        },
        "spec": spec,
    });
    Bytes::from(pod.to_string())
}

fn usual() -> Value {
    json!({
        "containers": [container("app", 8080), container("proxy", 15020)],
        "volumes": [
            {"name": "config", "configMap": {"name": "figures-config"}},
            {"name": "scratch", "emptyDir": {}},
        ],
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532},
    })
}

fn container(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "image": format!("registry.example/team/{name}@sha256:4f5ad1c6e2b9d0a37c81e0f9"),
        "args": ["serve", "--config", "/etc/figures/config.yaml"],
        "ports": [{"containerPort": port, "name": "http"}],
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "256Mi"},
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 10},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/figures", "readOnly": true},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
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
