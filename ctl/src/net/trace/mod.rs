//! `peapod net trace FROM TO`: the way of a packet, hop by hop, checked with probes.
//!
//! [`question`] finds out who is meant, [`gather`] has the nodes [`look`] at what their kernels know
//! and send the probes, by their [`agent`] where they are not of this machine: [`facts`]. [`path`] is the pure core that makes hops of them, [`marks`]
//! tells which hop answered which probe, [`words`] are what people read.

pub mod agent;
mod facts;
mod gather;
mod look;
mod marks;
mod path;
mod question;
mod words;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::Context;

/// `peapod net trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A pod, or a pod's address
    #[arg(value_name = "POD|IP")]
    from: String,
    /// A pod, a service (svc/NAME where a pod has the same name), or an address
    #[arg(value_name = "POD|SERVICE|IP")]
    to: String,
    /// Port of the destination [default: the service's first, the pod's first]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Protocol [default: the port's; ICMP without one]
    #[arg(long, value_enum)]
    protocol: Option<Wire>,
    /// Ask the kernels only, send nothing
    #[arg(long)]
    no_probe: bool,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wire {
    /// Connections
    Tcp,
    /// Datagrams
    Udp,
    /// Echo requests
    Icmp,
}

/// Shows it.
pub(super) async fn run(context: &Context, args: &TraceArgs) -> Result<()> {
    let asked = question::ask(context, args).await?;
    let facts = gather::gather(context, &asked, !args.no_probe).await?;
    let trace = path::trace(&facts);
    if context.format.is_table() {
        print!("{}", words::text(&trace));
        return Ok(());
    }
    context.format.print(&trace, super::show::Table::default)
}
