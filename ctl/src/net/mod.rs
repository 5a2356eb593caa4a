//! `peapod net`: the network engineer's view.
//!
//! Each view has its file: what it asks for, a pure function from the answers to what is shown,
//! and a table beside JSON of a stable form. Three sources answer: the API (everything that the
//! cluster knows), this machine's kernel (what is programmed here, for root), and the control
//! socket of a router (its tables).

mod budget;
mod drain;
mod endpoints;
mod evict;
mod history;
pub mod local;
mod peers;
mod policies;
mod routes;
mod services;
mod show;
mod source;
mod speaker;
mod topology;
pub mod trace;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::client::{Global, Session};
use crate::instance::Layout;
use show::{Format, Output};
use speaker::Speaker;

/// `peapod net`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct NetArgs {
    /// The control socket of a router, in place of a cluster (peers, routes, advertised)
    #[arg(long, value_name = "SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// Data directory of the instance on this machine that is looked into, by its own kubeconfig
    /// [default: the cluster of the kubeconfig]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, global = true)]
    output: Option<Output>,
    /// All namespaces
    #[arg(short = 'A', long, global = true)]
    all_namespaces: bool,
    #[command(subcommand)]
    view: View,
}

const EXAMPLES: &str = "Examples:
  peapod net history web-7c9fd6b5d8-x2x4q     where a pod has been, and why it moved
  peapod net history deployment/web --since 2h
  peapod net history 10.244.1.7                who had this address, and when
  peapod net trace web-7c9fd6b5d8-x2x4q api    hop by hop from a pod to a service
  peapod net peers                             every node's BGP sessions
  peapod net routes --node node-1              its routes, and why a path won
  peapod net drain node-1                      takes a node out, step by step
  peapod net topology -o mermaid               nodes, leaves and spines as a picture
  peapod net --socket /run/r1.sock routes      a router's tables, with no cluster";

#[derive(Debug, Subcommand)]
enum View {
    /// BGP sessions: of every node, or of a router
    Peers,
    /// Routes, all their paths, why a path won, and what the kernel made of it
    Routes(routes::RoutesArgs),
    /// What a neighbour is told
    Advertised(routes::AdvertisedArgs),
    /// The service map, and whether this machine's kernel has it
    Services(services::ServicesArgs),
    /// The endpoints of services, with their pods and nodes
    Endpoints(endpoints::EndpointsArgs),
    /// Network policies: what they select, and what is enforced
    Policies,
    /// Where a pod, workload, address, node or leaf has been or had, and why it changed
    History(history::HistoryArgs),
    /// Nodes, leaves and spines, as far as sessions tell
    Topology,
    /// The way of a packet, hop by hop, checked with probes
    Trace(trace::TraceArgs),
    /// A node leaves without a connection being lost, or comes back
    Drain(drain::DrainArgs),
    /// Routes against the size of a switch's table
    Budget(budget::BudgetArgs),
}

/// What every view of a cluster needs.
struct Context {
    session: Session,
    format: Format,
    all_namespaces: bool,
    /// Data directory of this machine's instance.
    instance: PathBuf,
}

/// The flags as they are with `--data-dir`: its instance is asked, unless a kubeconfig is named too.
fn of_instance(global: &Global, data_dir: Option<&Path>) -> Result<Global> {
    let mut global = global.clone();
    let Some(dir) = data_dir else {
        return Ok(global);
    };
    let own = Layout::new(dir)?.kubeconfig();
    if global.kubeconfig.is_none() && !own.exists() {
        let dir = dir.display();
        bail!("no instance keeps its data in {dir}; start one with `peapod up --data-dir {dir}`");
    }
    dir.clone_into(&mut global.instance_dir);
    global.kubeconfig.get_or_insert(own);
    Ok(global)
}

/// Shows a view.
pub fn run(args: NetArgs, global: &Global) -> Result<()> {
    let global = &of_instance(global, args.data_dir.as_deref())?;
    let format = Format::new(args.output);
    if let Some(socket) = &args.socket {
        let speaker = Speaker::Here(socket.clone());
        let runtime = crate::cli::single_threaded()?;
        return match &args.view {
            View::Peers => peers::of_router(socket, format),
            View::Routes(view) => runtime.block_on(routes::of_router(&speaker, view, format)),
            View::Advertised(view) => {
                runtime.block_on(routes::advertised_by_router(&speaker, view, format))
            }
            _ => bail!(
                "a router's socket shows peers, routes and advertised only; leave --socket out to look into the cluster"
            ),
        };
    }
    crate::cli::single_threaded()?.block_on(async {
        let context = Context {
            session: Session::open(global).await?,
            format,
            all_namespaces: args.all_namespaces,
            instance: global.instance_dir.clone(),
        };
        match &args.view {
            View::Peers => peers::of_cluster(&context).await,
            View::Routes(view) => routes::of_cluster(&context, view).await,
            View::Advertised(view) => routes::advertised(&context, view).await,
            View::Services(view) => services::run(&context, view).await,
            View::Endpoints(view) => endpoints::run(&context, view).await,
            View::Policies => policies::run(&context).await,
            View::History(view) => history::run(&context, view).await,
            View::Topology => topology::run(&context).await,
            View::Trace(view) => trace::run(&context, view).await,
            View::Drain(work) => drain::run(&context, work).await,
            View::Budget(view) => budget::run(&context, view).await,
        }
    })
}
