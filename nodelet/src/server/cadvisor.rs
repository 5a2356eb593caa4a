//! `/metrics/cadvisor`: usage under the names that cAdvisor gave it, on which dashboards stand. Pure.
//!
//! Pods are told of with `container=""`, as cAdvisor tells of a pod's cgroup; what is the pod's network
//! is told of there.

use super::metrics::{Family, Labels, label};
use super::stats::{ContainerUsage, PodUsage};
use crate::runtime::Stats;

/// The machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// CPUs.
    pub cpus: u32,
    /// Bytes.
    pub memory_bytes: u64,
}

/// All of it as text.
pub fn render(machine: Machine, pods: &[PodUsage]) -> String {
    let mut text = String::new();
    let mut counter = |name: &str, value: fn(&Stats) -> f64| {
        text.push_str(&by_group(name, "counter", pods, value).render());
    };
    counter("container_cpu_usage_seconds_total", |stats| {
        stats.cpu_usage_ns as f64 / 1e9
    });
    counter("container_memory_pgfault_total", |stats| {
        stats.page_faults as f64
    });
    counter("container_memory_pgmajfault_total", |stats| {
        stats.major_page_faults as f64
    });
    let mut gauge = |name: &str, value: fn(&Stats) -> f64| {
        text.push_str(&by_group(name, "gauge", pods, value).render());
    };
    gauge("container_memory_usage_bytes", |stats| {
        stats.memory_usage_bytes as f64
    });
    gauge("container_memory_working_set_bytes", |stats| {
        stats.memory_working_set_bytes as f64
    });
    gauge("container_memory_rss", |stats| {
        stats.memory_rss_bytes as f64
    });
    gauge("container_processes", |stats| stats.pids as f64);
    let mut started = Family::new("container_start_time_seconds", "gauge");
    for pod in pods {
        for container in &pod.containers {
            let seconds = container.started_at.as_second() as f64;
            started.add(of_container(pod, container), seconds);
        }
    }
    text.push_str(&started.render());
    for family in network(pods) {
        text.push_str(&family.render());
    }
    let mut cpus = Family::new("machine_cpu_cores", "gauge");
    cpus.add(Labels::new(), f64::from(machine.cpus));
    let mut memory = Family::new("machine_memory_bytes", "gauge");
    memory.add(Labels::new(), machine.memory_bytes as f64);
    text.push_str(&cpus.render());
    text.push_str(&memory.render());
    text
}

fn by_group(name: &str, kind: &'static str, pods: &[PodUsage], value: fn(&Stats) -> f64) -> Family {
    let mut family = Family::new(name, kind);
    for pod in pods {
        family.add(of_pod(pod), value(&pod.total));
        for container in &pod.containers {
            family.add(of_container(pod, container), value(&container.stats));
        }
    }
    family
}

fn network(pods: &[PodUsage]) -> Vec<Family> {
    let mut families = Vec::new();
    for direction in ["receive", "transmit"] {
        for what in ["bytes", "packets", "errors", "packets_dropped"] {
            let name = format!("container_network_{direction}_{what}_total");
            let mut family = Family::new(&name, "counter");
            for pod in pods {
                for interface in &pod.interfaces {
                    let counters = match direction {
                        "receive" => interface.received,
                        _ => interface.sent,
                    };
                    let value = match what {
                        "bytes" => counters.bytes,
                        "packets" => counters.packets,
                        "errors" => counters.errors,
                        _ => counters.dropped,
                    };
                    let mut labels = of_pod(pod);
                    labels.push(label("interface", &interface.name));
                    family.add(labels, value as f64);
                }
            }
            families.push(family);
        }
    }
    families
}

fn of_pod(pod: &PodUsage) -> Labels {
    vec![
        label("container", ""),
        label("id", &format!("/kubepods/pod{}", pod.uid)),
        label("image", ""),
        label("name", ""),
        label("namespace", &pod.namespace),
        label("pod", &pod.name),
    ]
}

fn of_container(pod: &PodUsage, container: &ContainerUsage) -> Labels {
    vec![
        label("container", &container.name),
        label("id", &format!("/kubepods/pod{}/{}", pod.uid, container.id)),
        label("image", &container.image),
        label("name", &container.id),
        label("namespace", &pod.namespace),
        label("pod", &pod.name),
    ]
}
