//! What the node agent and the network agent take at a hundred pods: one process, joined to a server elsewhere.

use anyhow::Result;
use peapod_tests::place::{SERVER, server};
use peapod_tests::{Cluster, Place, command, wait};

use crate::footprint::Idle;
use crate::many_pods::{PODS, STARTED, all_at_once};
use crate::pods::{pods, runtime};
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
    let runtime = runtime()?;
    let pods = runtime.block_on(pods(&cluster))?;
    runtime.block_on(all_at_once(&pods))?;
    // By now the process has let go of what its start needed.
    std::thread::sleep(STARTED);
    let pid = place.pid()?;
    let idle = Idle::over(pid, idle_seconds)?;
    report.add(
        "RSS of a joined node, idle, 100 pods",
        mb(idle.rss),
        "40 MB",
        format!(
            "node agent and network agent, {} of it data; {PODS} pods",
            mb(process::data(pid)?)
        ),
    );
    report.add(
        "CPU of a joined node, idle, 100 pods",
        idle.share(),
        "1 % of a core",
        format!("over {idle_seconds} s"),
    );
    place.peapod("down --purge")?.ok()?;
    cluster.purge()?;
    child.wait()?;
    Ok(())
}
