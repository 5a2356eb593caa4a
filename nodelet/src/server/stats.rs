//! What pods and the node use: `/stats/summary` as JSON; `/metrics/resource`, `/metrics/cadvisor` and
//! `/metrics/probes` for Prometheus.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::metrics::{Family, label};
use super::net_dev::{self, Interface};
use super::{Shared, cadvisor};
use crate::core::spec_of;
use crate::csi::stats as volumes;
use crate::eviction::below;
use crate::node::facts::{self, Room};
use crate::runtime::{Container, ContainerId, ContainerState, DiskUsage, Stats};

/// What one pod uses.
#[derive(Clone, Debug, Default)]
pub struct PodUsage {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// When it came to the node.
    pub started_at: Timestamp,
    /// The whole pod.
    pub total: Stats,
    /// Its running containers.
    pub containers: Vec<ContainerUsage>,
    /// Its interfaces; none with the host's network.
    pub interfaces: Vec<Interface>,
    /// Its volumes of storage drivers.
    pub volumes: Vec<volumes::Usage>,
}

/// What one container uses.
#[derive(Clone, Debug, Default)]
pub struct ContainerUsage {
    /// Name in the pod.
    pub name: String,
    /// The runtime's ID.
    pub id: String,
    /// What the pod calls its image.
    pub image: String,
    /// When its process started.
    pub started_at: Timestamp,
    /// What it uses.
    pub stats: Stats,
}

async fn usages(shared: &Shared) -> Vec<PodUsage> {
    let runtime = &shared.context.runtime;
    let mut running: HashMap<String, Vec<(Container, Timestamp, u32)>> = HashMap::new();
    for container in runtime.containers().await.unwrap_or_default() {
        if let ContainerState::Running { started_at, pid } = container.state {
            let of_pod = running.entry(container.pod_uid.clone()).or_default();
            of_pod.push((container, started_at, pid));
        }
    }
    let mut usages = Vec::new();
    for entry in shared.table.all() {
        let pod = entry.pod();
        let Ok(total) = runtime.sandbox_stats(&entry.uid).await else {
            continue;
        };
        let volumes = volumes::of_pod(&shared.context, &entry).await;
        let mut usage = PodUsage {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: entry.uid.clone(),
            started_at: entry.machine.lock().start_time(),
            total,
            volumes,
            ..PodUsage::default()
        };
        let of_pod = running.remove(&entry.uid).unwrap_or_default();
        if spec_of(&pod).host_network != Some(true)
            && let Some((_, _, pid)) = of_pod.first()
        {
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev"));
            usage.interfaces = net_dev::parse(&table.unwrap_or_default());
        }
        for (container, started_at, _) in of_pod {
            if let Ok(stats) = runtime.container_stats(&container.id).await {
                usage.containers.push(ContainerUsage {
                    name: container.name,
                    id: container.id.0,
                    image: container.image,
                    started_at,
                    stats,
                });
            }
        }
        usages.push(usage);
    }
    usages
}

/// Usage under cAdvisor's names.
pub async fn cadvisor(State(shared): State<Shared>) -> Response {
    let facts = facts::facts(&shared.context.config.data_dir);
    let machine = cadvisor::Machine {
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
    };
    text(cadvisor::render(machine, &usages(&shared).await))
}

/// How full claims are, under the kubelet's names.
pub async fn claims(shared: &Shared) -> String {
    let mut claims = Vec::new();
    for entry in shared.table.all() {
        claims.extend(volumes::of_pod(&shared.context, &entry).await);
    }
    of_claims(&claims)
}

fn of_claims(claims: &[volumes::Usage]) -> String {
    let values = |usage: &volumes::Usage| usage.bytes.into_iter().chain(usage.inodes);
    let names = [
        "capacity_bytes",
        "used_bytes",
        "available_bytes",
        "inodes",
        "inodes_used",
        "inodes_free",
    ];
    let mut text = String::new();
    for (index, name) in names.into_iter().enumerate() {
        let mut family = Family::new(&format!("kubelet_volume_stats_{name}"), "gauge");
        for usage in claims {
            let (Some(claim), Some(value)) = (&usage.claim, values(usage).nth(index)) else {
                continue;
            };
            let namespace = label("namespace", &usage.namespace);
            let labels = vec![namespace, label("persistentvolumeclaim", claim)];
            family.add(labels, value as f64);
        }
        text += &family.render();
    }
    text
}

/// What came of the probes.
pub async fn probes(State(shared): State<Shared>) -> Response {
    let mut family = Family::new("prober_probe_total", "counter");
    for count in shared.context.prober.counts.all() {
        family.add(count.labels.into(), count.count as f64);
    }
    text(family.render())
}

fn text(metrics: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics).into_response()
}

fn cpu(now: Timestamp, stats: &Stats) -> Value {
    json!({"time": now.to_string(), "usageCoreNanoSeconds": stats.cpu_usage_ns})
}

fn memory(now: Timestamp, stats: &Stats) -> Value {
    json!({"time": now.to_string(), "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes, "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults})
}

/// The first interface is the pod's own; the others are told of beside it.
fn network(now: Timestamp, interfaces: &[Interface]) -> Value {
    let all: Vec<Value> = interfaces
        .iter()
        .map(|interface| {
            json!({"name": interface.name,
                "rxBytes": interface.received.bytes, "rxErrors": interface.received.errors,
                "txBytes": interface.sent.bytes, "txErrors": interface.sent.errors})
        })
        .collect();
    let mut network = all.first().cloned().unwrap_or_else(|| json!({"name": ""}));
    network["time"] = json!(now.to_string());
    network["interfaces"] = Value::Array(all);
    network
}

/// What a file system has, and how much of it something takes.
fn file_system(now: Timestamp, bytes: Room, inodes: Room, taken: DiskUsage) -> Value {
    json!({"time": now.to_string(), "capacityBytes": bytes.size, "availableBytes": bytes.free,
        "usedBytes": taken.bytes,
        "inodes": inodes.size, "inodesFree": inodes.free, "inodesUsed": taken.inodes})
}

/// What is taken of a whole file system.
fn used(bytes: Room, inodes: Room) -> DiskUsage {
    DiskUsage {
        bytes: bytes.size.saturating_sub(bytes.free),
        inodes: inodes.size.saturating_sub(inodes.free),
    }
}

/// What the containers of a pod take on disk: of their own layers, and of their logs.
async fn on_disk(shared: &Shared, usage: &PodUsage) -> Vec<(DiskUsage, DiskUsage)> {
    let config = &shared.context.config;
    let folder = format!("{}_{}_{}", usage.namespace, usage.name, usage.uid);
    let logs = config.log_dir.join(folder);
    let names = usage.containers.iter().map(|one| logs.join(&one.name));
    let dirs: Vec<PathBuf> = names.collect();
    let measured = tokio::task::spawn_blocking(move || {
        let sizes = dirs.iter().map(|dir| below(dir));
        sizes.collect::<Vec<DiskUsage>>()
    });
    let logs = measured.await.unwrap_or_default();
    let mut all = Vec::new();
    for (container, logs) in usage.containers.iter().zip(logs) {
        let id = ContainerId(container.id.clone());
        let layer = shared.context.runtime.writable_usage(&id).await;
        all.push((layer.unwrap_or_default(), logs));
    }
    all
}

/// The summary that `kubectl top` and autoscalers are made from.
pub async fn summary(State(shared): State<Shared>) -> Response {
    let now = Timestamp::now();
    let config = &shared.context.config;
    let left = facts::left(&config.data_dir, &config.image_dir().await);
    let node = node_usage();
    let mut pods = Vec::new();
    for usage in usages(&shared).await {
        let disk = on_disk(&shared, &usage).await;
        let each = usage.containers.iter().zip(&disk);
        let containers = each.map(|(container, (layer, logs))| {
            json!({"name": container.name, "startTime": container.started_at.to_string(),
                "cpu": cpu(now, &container.stats), "memory": memory(now, &container.stats),
                "rootfs": file_system(now, left.image_disk, left.image_inodes, *layer),
                "logs": file_system(now, left.disk, left.inodes, *logs)})
        });
        let whole: DiskUsage = disk.iter().map(|(layer, logs)| *layer + *logs).sum();
        pods.push(json!({
            "podRef": {"name": usage.name, "namespace": usage.namespace, "uid": usage.uid},
            "startTime": usage.started_at.to_string(),
            "cpu": cpu(now, &usage.total), "memory": memory(now, &usage.total),
            "network": network(now, &usage.interfaces),
            "volume": usage.volumes.iter()
                .map(|volume| volumes::summary(volume, &now.to_string())).collect::<Vec<_>>(),
            "ephemeral-storage": file_system(now, left.disk, left.inodes, whole),
            "process_stats": {"process_count": usage.total.pids},
            "containers": containers.collect::<Vec<_>>(),
        }));
    }
    let images = file_system(
        now,
        left.image_disk,
        left.image_inodes,
        used(left.image_disk, left.image_inodes),
    );
    let node = json!({
        "nodeName": config.node_name,
        "cpu": cpu(now, &node), "memory": memory(now, &node),
        "fs": file_system(now, left.disk, left.inodes, used(left.disk, left.inodes)),
        "runtime": {"imageFs": images.clone(), "containerFs": images},
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
    text(render(&node_usage(), &usages(&shared).await))
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
            for container in &pod.containers {
                let (name, stats) = (&container.name, &container.stats);
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
            containers: vec![ContainerUsage {
                name: "app".into(),
                id: "c1".into(),
                image: "img".into(),
                started_at: Timestamp::UNIX_EPOCH,
                stats,
            }],
            volumes: Vec::new(),
            interfaces: net_dev::parse("eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0"),
            started_at: Timestamp::UNIX_EPOCH,
        };
        let machine = cadvisor::Machine {
            cpus: 2,
            memory_bytes: 1 << 30,
        };
        let under = cadvisor::render(machine, std::slice::from_ref(&usage));
        let of_pod = "container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"ns\",pod=\"web\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{of_pod}}} 1.5"),
            "container_memory_working_set_bytes{container=\"app\",id=\"/kubepods/podu/c1\",image=\"img\",name=\"c1\",namespace=\"ns\",pod=\"web\"} 2048".to_owned(),
            format!("container_network_transmit_bytes_total{{{of_pod},interface=\"eth0\"}} 7"),
            "machine_cpu_cores 2".to_owned(),
        ] {
            assert!(under.lines().any(|found| found == line), "{line}\n{under}");
        }
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
