//! What the node agent and the network agent take at a hundred pods: one process, joined to a server elsewhere.

use std::time::Duration;

use anyhow::Result;
use peapod_tests::place::{SERVER, server};
use peapod_tests::{Cluster, Place, command, wait};

use crate::many_pods::{PODS, STARTED, all_at_once};
use crate::pod_start;
use crate::process::{self, mb};
use crate::report::Report;

/// On a cluster of its own, whose only node has a network namespace of its own.
pub fn measure(report: &mut Report, idle_seconds: u64) -> Result<()> {
    let cluster = Cluster::prepare()?;
    let place = Place::new()?;
    let (mut child, join) = server(&cluster, SERVER)?;
    place.peapod(&join)?.ok()?;
    let archive = command::demo_archive("v1")?;
    let load = format!("image load {}", archive.to_string_lossy());
    place.peapod(&load)?.ok()?;
    wait::until("the default service account", || {
        Ok(cluster.kubectl("get serviceaccount default")?.status == 0)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pods = runtime.block_on(pod_start::pods(&cluster))?;
    runtime.block_on(all_at_once(&pods))?;
    // By now the process has let go of what its start needed.
    std::thread::sleep(STARTED);
    let pid = place.pid()?;
    let begun = process::cpu(pid)?;
    std::thread::sleep(Duration::from_secs(idle_seconds));
    let used = process::cpu(pid)? - begun;
    report.add(
        "RSS of a joined node, idle, 100 pods",
        mb(process::rss(pid)?),
        "40 MB",
        format!(
            "node agent and network agent, {} of it data; {PODS} pods",
            mb(process::data(pid)?)
        ),
    );
    report.add(
        "CPU of a joined node, idle, 100 pods",
        format!("{:.2} %", 100.0 * used.as_secs_f64() / idle_seconds as f64),
        "1 % of a core",
        format!("over {idle_seconds} s"),
    );
    place.peapod("down --purge")?.ok()?;
    cluster.purge()?;
    child.wait()?;
    Ok(())
}
