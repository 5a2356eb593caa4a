//! What an idle cluster of ten pods takes: memory and processor time.

use std::time::Duration;

use anyhow::Result;
use peapod_tests::Cluster;

use crate::process::{self, Process, mb};
use crate::report::Report;

const TEN_PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: 10
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      containers: [{name: c, image: 'peapod.dev/demo:v1', args: [serve]}]
"#;

/// Measures after the pods are up and the machine had time to settle.
pub fn measure(report: &mut Report, idle_seconds: u64) -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(TEN_PODS)?;
    cluster
        .kubectl("rollout status deployment/idle --timeout=120s")?
        .ok()?;
    std::thread::sleep(Duration::from_secs(5));

    let idle = Idle::over(cluster.pid()?, idle_seconds)?;
    report.add(
        "CPU, idle, 10 pods",
        idle.share(),
        "1 % of a core",
        format!("over {idle_seconds} s"),
    );
    report.add(
        "RSS of peapod, idle, 10 pods",
        mb(idle.rss),
        "60 MB",
        "-".to_owned(),
    );

    let (total, detail) = (pss_of_all()?, parts()?);
    let reference = format!("{detail}; Kubernetes 1.36: above 700 MB");
    report.add(
        "PSS of all that serves, 10 pods",
        mb(total),
        "160 MB",
        reference,
    );
    Ok(())
}

/// What a process uses while nothing is asked of it.
pub struct Idle {
    /// Seconds of processor time in a second.
    cpu: f64,
    /// Resident memory at the end, in bytes.
    pub rss: u64,
}

impl Idle {
    /// Measures a process for so many seconds.
    pub fn over(pid: i32, seconds: u64) -> Result<Self> {
        let before = process::cpu(pid)?;
        std::thread::sleep(Duration::from_secs(seconds));
        let used = process::cpu(pid)? - before;
        Ok(Self {
            cpu: used.as_secs_f64() / seconds as f64,
            rss: process::rss(pid)?,
        })
    }

    /// Processor time as a share of a core, in words.
    pub fn share(&self) -> String {
        format!("{:.2} %", 100.0 * self.cpu)
    }
}

/// Proportional memory of all that serves the cluster, in bytes.
pub fn pss_of_all() -> Result<u64> {
    Ok(by_part()?.iter().map(|(_, bytes)| bytes).sum())
}

/// The same, part by part, in words.
pub fn parts() -> Result<String> {
    let parts = by_part()?;
    let parts = parts
        .iter()
        .map(|(name, bytes)| format!("{name} {}", mb(*bytes)));
    Ok(parts.collect::<Vec<_>>().join(", "))
}

fn by_part() -> Result<Vec<(&'static str, u64)>> {
    let mut parts: Vec<(&str, u64)> = Vec::new();
    for process in &serving()? {
        let bytes = process::pss(process.pid)?;
        let name = program(process);
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += bytes,
            None => parts.push((name, bytes)),
        }
    }
    Ok(parts)
}

/// Everything that serves the cluster: peapod, its log writer and its shim, containerd, its shims.
fn serving() -> Result<Vec<Process>> {
    process::find(|command| {
        let program = command
            .split_whitespace()
            .next()
            .and_then(|p| p.rsplit('/').next());
        matches!(
            program,
            Some("peapod" | "containerd" | "containerd-shim-runc-v2")
        )
    })
}

fn program(process: &Process) -> &'static str {
    let mut words = process.command.split_whitespace();
    let name = words
        .next()
        .and_then(|p| p.rsplit('/').next())
        .unwrap_or_default();
    match words.next() {
        Some("log-writer") => "log writer",
        Some("shim") => "shim",
        _ => match name {
            "containerd-shim-runc-v2" => "containerd's shims",
            "containerd" => "containerd",
            _ => "peapod",
        },
    }
}
