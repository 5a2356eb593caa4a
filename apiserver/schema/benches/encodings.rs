//! What rewriting a stored pod costs in each encoding: `cargo bench -p peapod-schema`.
//!
//! The mean time of one rewriting, and of reading it back, is printed beside the sizes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peapod_schema::protobuf::{self, Shown};
use peapod_schema::{Schema, cbor, decode};
use serde_json::{Value, json};

const TURNS: u32 = 20_000;

/// A pod as it runs: about the size of most.
fn pod() -> Value {
    let container = |name: &str| {
        json!({
            "name": name,
            "image": "registry.example/team/service:1.2.3",
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "MODE", "value": "production"}, {"name": "NODE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "failureThreshold": 3, "successThreshold": 1, "timeoutSeconds": 1},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", "lastProbeTime": null});
    let status = |name: &str| json!({"name": name, "ready": true, "started": true, "restartCount": 0, "image": "registry.example/team/service:1.2.3", "imageID": "sha256:0123456789abcdef", "containerID": "containerd://0123456789abcdef", "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}, "lastState": {}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "service-7d9f8c6b5-abcde", "namespace": "team", "uid": "0b7c2f0e-8d5a-4b1c-9e2f-1234567890ab", "resourceVersion": "123456",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "service", "pod-template-hash": "7d9f8c6b5"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "service-7d9f8c6b5", "uid": "1b7c2f0e-8d5a-4b1c-9e2f-1234567890ab", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "controllers", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}}],
        },
        "spec": {"containers": [container("a"), container("b")], "nodeName": "node-1", "serviceAccountName": "default", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}], "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "10.1.0.1", "startTime": "2026-01-02T03:04:05Z", "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")], "containerStatuses": [status("a"), status("b")]},
    })
}

/// The mean time of some work.
fn mean<T>(mut work: impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..TURNS {
        black_box(work());
    }
    start.elapsed() / TURNS
}

fn main() {
    let graph = Arc::new(peapod_schema::builtin::graph(|text| Ok(text.to_owned())));
    let schema = Schema::named(&graph, "core.v1.Pod").expect("a kind of the table");
    let json = pod().to_string().into_bytes();
    let object = || protobuf::encode(&json, &schema, Shown::Object).expect("a pod");
    let metadata = || protobuf::encode(&json, &schema, Shown::Metadata).expect("a pod");
    let concise = || cbor::encode(&json).expect("JSON");
    let (as_protobuf, as_cbor) = (object(), concise());
    let row = |what: &str, size: usize, write: Duration, read: Duration| {
        println!("{what:<20} {size:>6} B   write {write:>10.2?}   read {read:>10.2?}");
    };
    let value = pod();
    row(
        "JSON",
        json.len(),
        mean(|| value.to_string()),
        mean(|| decode::json(&json)),
    );
    row(
        "protobuf",
        as_protobuf.len(),
        mean(object),
        mean(|| protobuf::decode(&as_protobuf, &schema)),
    );
    row(
        "protobuf, metadata",
        metadata().len(),
        mean(metadata),
        Duration::ZERO,
    );
    row(
        "CBOR",
        as_cbor.len(),
        mean(concise),
        mean(|| cbor::decode(&as_cbor)),
    );
}
