//! What each step of a write costs that follows from the shape alone:
//! `cargo run --release -p peapod-schema --example write_steps [ROUNDS]`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use peapod_schema::apply::{self, FieldSet, Writer};
use peapod_schema::{Schema, builtin, check, decode, default};
use serde_json::{Value, json};

static STATUS: FieldSet = FieldSet::EMPTY;

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "pod-000001",
            "namespace": "default",
            "labels": {"app": "figures", "pod-template-hash": "5d4f8c7b9d"},
            "annotations": {"figures.peapod.dev/padding": "x".repeat(1200)},
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

fn writer(manager: &'static str, subresource: &'static str) -> Writer<'static> {
    Writer {
        manager,
        api_version: "v1",
        subresource,
        now: "2026-01-01T00:00:00Z",
        ignored: &STATUS,
    }
}

/// Times one step; each round works on a clone, whose cost is a row of its own.
fn time(name: &str, rounds: u32, mut step: impl FnMut()) {
    let began = Instant::now();
    for _ in 0..rounds {
        step();
    }
    println!(
        "{name:<28} {:>8.1} us",
        began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
    );
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    let graph = Arc::new(builtin::graph(|text| Ok(text.to_owned())));
    let schema = Schema::named(&graph, "core.v1.Pod").expect("the table has pods");
    let sent = pod();
    let body = sent.to_string();
    let mut full = sent.clone();
    default::default(&mut full, &schema);
    let mut owned = full.clone();
    apply::update(None, &mut owned, &schema, writer("kubectl", ""));
    let mut bound = owned.clone();
    bound["status"] = json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});

    time("clone", rounds, || drop(black_box(owned.clone())));
    time("decode", rounds, || {
        drop(black_box(decode::json(body.as_bytes())))
    });
    time("check", rounds, || {
        let mut value = sent.clone();
        drop(black_box(check::check(&mut value, &schema)));
    });
    time("default", rounds, || {
        let mut value = sent.clone();
        default::default(&mut value, &schema);
        black_box(value);
    });
    time("own all, of a create", rounds, || {
        let mut value = full.clone();
        apply::update(None, &mut value, &schema, writer("kubectl", ""));
        black_box(value);
    });
    time("own changes, of a status", rounds, || {
        let mut value = bound.clone();
        apply::update(
            Some(&owned),
            &mut value,
            &schema,
            writer("kubelet", "status"),
        );
        black_box(value);
    });
    time("encode", rounds, || {
        drop(black_box(serde_json::to_vec(&owned)))
    });
}
