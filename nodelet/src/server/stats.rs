//! What pods and the node use: `/stats/summary` as JSON, `/metrics/resource` for Prometheus.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shared;
use crate::core::view;
use crate::node::facts;
use crate::runtime::{ContainerId, Stats};

/// What one pod uses.
struct PodUsage {
    namespace: String,
    name: String,
    uid: String,
    total: Stats,
    containers: Vec<(String, Stats)>,
}

async fn usages(shared: &Shared) -> Vec<PodUsage> {
    let runtime = &shared.context.runtime;
    let mut usages = Vec::new();
    for entry in shared.table.all() {
        let pod = entry.pod();
        let Ok(total) = runtime.sandbox_stats(&entry.uid).await else {
            continue;
        };
        let running: Vec<(String, String)> = {
            let machine = entry.machine.lock();
            let names = view(&pod).filter(|view| machine.runs(view.name));
            names
                .filter_map(|view| {
                    let id = machine.container_id(view.name, false)?;
                    Some((view.name.to_owned(), id.to_owned()))
                })
                .collect()
        };
        let mut containers = Vec::new();
        for (name, id) in running {
            if let Ok(stats) = runtime.container_stats(&ContainerId(id)).await {
                containers.push((name, stats));
            }
        }
        usages.push(PodUsage {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: entry.uid.clone(),
            total,
            containers,
        });
    }
    usages
}

fn cpu(now: Timestamp, stats: &Stats) -> Value {
    json!({"time": now.to_string(), "usageCoreNanoSeconds": stats.cpu_usage_ns})
}

fn memory(now: Timestamp, stats: &Stats) -> Value {
    json!({"time": now.to_string(), "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes, "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults})
}

/// The summary that `kubectl top` and autoscalers are made from.
pub async fn summary(State(shared): State<Shared>) -> Response {
    let now = Timestamp::now();
    let node = node_usage();
    let mut pods = Vec::new();
    for usage in usages(&shared).await {
        let containers = usage.containers.iter().map(|(name, stats)| {
            json!({"name": name, "cpu": cpu(now, stats), "memory": memory(now, stats)})
        });
        pods.push(json!({
            "podRef": {"name": usage.name, "namespace": usage.namespace, "uid": usage.uid},
            "cpu": cpu(now, &usage.total), "memory": memory(now, &usage.total),
            "process_stats": {"process_count": usage.total.pids},
            "containers": containers.collect::<Vec<_>>(),
        }));
    }
    let left = facts::left(&shared.context.config.data_dir);
    let node = json!({
        "nodeName": shared.context.config.node_name,
        "cpu": cpu(now, &node), "memory": memory(now, &node),
        "fs": {"time": now.to_string(), "capacityBytes": left.disk_size_bytes,
            "availableBytes": left.disk_bytes,
            "usedBytes": left.disk_size_bytes.saturating_sub(left.disk_bytes)},
    });
    axum::Json(json!({"node": node, "pods": pods})).into_response()
}

/// What the whole machine uses.
fn node_usage() -> Stats {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = facts::memory_used(&meminfo);
    Stats {
        cpu_usage_ns: facts::cpu_used_ns(&stat),
        memory_usage_bytes: memory,
        memory_working_set_bytes: memory,
        ..Stats::default()
    }
}

/// Usage under the kubelet's metric names.
pub async fn resource(State(shared): State<Shared>) -> Response {
    let text = render(&node_usage(), &usages(&shared).await);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn render(node: &Stats, usages: &[PodUsage]) -> String {
    let mut text = String::new();
    let seconds = |stats: &Stats| stats.cpu_usage_ns as f64 / 1e9;
    let mut family = |name: &str, kind: &str, lines: Vec<(String, f64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let pods = |value: fn(&Stats) -> f64| -> Vec<(String, f64)> {
        let line = |pod: &PodUsage| {
            let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", pod.namespace, pod.name);
            (labels, value(&pod.total))
        };
        usages.iter().map(line).collect()
    };
    let containers = |value: fn(&Stats) -> f64| -> Vec<(String, f64)> {
        let mut lines = Vec::new();
        for pod in usages {
            for (name, stats) in &pod.containers {
                let labels = format!(
                    "{{container=\"{name}\",namespace=\"{}\",pod=\"{}\"}}",
                    pod.namespace, pod.name
                );
                lines.push((labels, value(stats)));
            }
        }
        lines
    };
    let working = |stats: &Stats| stats.memory_working_set_bytes as f64;
    let used = |stats: &Stats| stats.cpu_usage_ns as f64 / 1e9;
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        containers(used),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        containers(working),
    );
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        vec![(String::new(), seconds(node))],
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        vec![(String::new(), working(node))],
    );
    family("pod_cpu_usage_seconds_total", "counter", pods(used));
    family("pod_memory_working_set_bytes", "gauge", pods(working));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_under_their_names() {
        let stats = Stats {
            cpu_usage_ns: 1_500_000_000,
            memory_working_set_bytes: 2048,
            ..Stats::default()
        };
        let usage = PodUsage {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u".into(),
            total: stats,
            containers: vec![("app".into(), stats)],
        };
        let text = render(&stats, &[usage]);
        for line in [
            "container_cpu_usage_seconds_total{container=\"app\",namespace=\"ns\",pod=\"web\"} 1.5",
            "node_memory_working_set_bytes 2048",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"web\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
