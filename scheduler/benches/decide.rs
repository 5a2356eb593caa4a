//! What a decision costs: `cargo bench -p peapod-scheduler`.
//!
//! A cluster of 1,000 nodes in three zones is filled with 10,000 pods, each decided and placed; the
//! mean of the time per decision is printed for several kinds of pods.

use std::sync::Arc;
use std::time::Instant;

use peapod_scheduler::core::decide::{Candidate, decide};
use peapod_scheduler::core::node::NodeSpec;
use peapod_scheduler::core::shape::Shape;
use peapod_scheduler::core::snapshot::{Facts, PodKey, Snapshot};
use peapod_scheduler::view;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

const NODES: usize = 1_000;
const PODS: usize = 10_000;

fn node(index: usize) -> NodeSpec {
    let node: view::Node = serde_json::from_value(json!({
        "metadata": {"labels": {
            "kubernetes.io/hostname": format!("node-{index}"),
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
        }},
        "status": {"allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110"}},
    }))
    .expect("the node is well-formed");
    NodeSpec::of(&node)
}

fn shape(spec: Value, deployment: usize) -> Arc<Shape> {
    let container = json!({
        "image": "app",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    });
    let mut pod = json!({
        "metadata": {
            "namespace": "default",
            "labels": {"app": format!("app-{deployment}"), "pod-template-hash": "abcdef"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("app-{deployment}"), "uid": format!("uid-{deployment}"),
            }],
        },
        "spec": {"containers": [container]},
    });
    if let (Value::Object(base), Value::Object(more)) = (&mut pod["spec"], spec) {
        base.extend(more);
    }
    let pod: view::Pod = serde_json::from_value(pod).expect("the pod is well-formed");
    Arc::new(Shape::of(&pod))
}

fn terms(term: &str, weight: bool, deployment: usize) -> Value {
    let one = json!({
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": format!("app-{deployment}")}},
    });
    let (key, list) = if weight {
        let one = json!([{"weight": 100, "podAffinityTerm": one}]);
        ("preferredDuringSchedulingIgnoredDuringExecution", one)
    } else {
        let one = json!([one]);
        ("requiredDuringSchedulingIgnoredDuringExecution", one)
    };
    json!({"affinity": {term: {key: list}}})
}

/// Fills the cluster; the pods belong to `deployments` owners in turn.
fn fill(name: &str, deployments: usize, spec: impl Fn(usize) -> Value) {
    let mut snapshot = Snapshot::default();
    for index in 0..NODES {
        snapshot.set_node(&format!("node-{index}"), node(index));
    }
    let shapes: Vec<_> = (0..deployments).map(|d| shape(spec(d), d)).collect();
    let mut rng = StdRng::seed_from_u64(1);
    let mut placed = 0;
    let began = Instant::now();
    for index in 0..PODS {
        let shape = &shapes[index % deployments];
        let key: PodKey = format!("default/pod-{index}").into();
        let candidate = Candidate {
            key: &key,
            shape,
            priority: 0,
            nominated: None,
        };
        if let Ok(choice) = decide(candidate, &mut snapshot, &mut rng) {
            let facts = Facts {
                uid: key.clone(),
                priority: 0,
                started: 0,
                terminating: false,
            };
            snapshot.place(&key, shape, &choice.node, facts);
            placed += 1;
        }
    }
    let each = began.elapsed() / PODS as u32;
    println!("{name:40} {each:>10.1?} per pod, {placed} of {PODS} placed");
}

fn main() {
    println!("{NODES} nodes, {PODS} pods");
    let zone_spread = |d| {
        json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": format!("app-{d}")}},
        }]})
    };
    fill("one ReplicaSet", 1, |_| json!({}));
    fill("100 ReplicaSets", 100, |_| json!({}));
    fill("5,000 ReplicaSets", 5_000, |_| json!({}));
    fill("100 ReplicaSets, spread by zone", 100, zone_spread);
    fill("100 ReplicaSets, one per node", 100, |d| {
        terms("podAntiAffinity", false, d)
    });
    fill("100 ReplicaSets, rather not together", 100, |d| {
        terms("podAntiAffinity", true, d)
    });
    fill(
        "no node fits",
        1,
        |_| json!({"nodeSelector": {"disk": "ssd"}}),
    );
}
