//! `make bench`: the figures of SPECIFICATION.md, each beside its reference measured in the same
//! run. CPU time is the steady figure on a shared machine; wall time stands beside it.

mod ctr;
mod footprint;
mod joined_node;
mod many_pods;
mod pod_start;
mod pods;
mod process;
mod pull;
mod report;
mod start_up;
mod stock;

use anyhow::Result;
use clap::Parser;

use crate::report::Report;

/// Measures Peapod against its promises.
#[derive(Parser)]
struct Arguments {
    /// Only the groups whose name contains this: cluster, pods, many, node, pull
    #[arg(default_value = "")]
    only: String,
    /// Seconds over which an idle cluster is watched
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |group: &str| group.contains(&arguments.only);
    let mut report = Report::new();
    if wanted("cluster") {
        start_up::measure(&mut report)?;
        footprint::measure(&mut report, arguments.idle_seconds)?;
    }
    if wanted("pods") {
        pod_start::measure(&mut report)?;
    }
    if wanted("many") {
        many_pods::measure(&mut report, arguments.idle_seconds)?;
    }
    if wanted("node") {
        joined_node::measure(&mut report, arguments.idle_seconds)?;
    }
    if wanted("pull") {
        pull::measure(&mut report)?;
    }
    print!("{}", report.render());
    Ok(())
}
