//! `peapod router`, a BGP router with no cluster, and `peapod net`, which looks into one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use peapod_router::RouterConfig;
use peapod_router::control::{self, ShownPeer, ShownRoute};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::single_threaded;

/// `peapod router`.
#[derive(Debug, Args)]
pub struct RouterArgs {
    /// The router's configuration (YAML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// `peapod net`.
#[derive(Debug, Args)]
pub struct NetArgs {
    /// The control socket of a router
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    #[command(subcommand)]
    view: View,
}

#[derive(Debug, Subcommand)]
enum View {
    /// The BGP neighbours
    Peers {
        /// Output format
        #[arg(short, long, value_enum)]
        output: Option<Output>,
    },
    /// The routes, all their paths, and why a path won
    Routes {
        /// Only what this neighbour has sent, refused routes too
        #[arg(long, value_name = "NEIGHBOR", conflicts_with = "advertised")]
        received: Option<String>,
        /// What this neighbour is told
        #[arg(long, value_name = "NEIGHBOR")]
        advertised: Option<String>,
        /// Output format
        #[arg(short, long, value_enum)]
        output: Option<Output>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// JSON
    Json,
}

/// Runs a router until it is told to stop. Its routes stay in the kernel.
pub fn run(args: &RouterArgs) -> Result<()> {
    let config = RouterConfig::read(&args.config)?;
    let filter = EnvFilter::try_from_env("PEAPOD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = single_threaded()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let router = peapod_router::run(config, shutdown.clone());
        tokio::pin!(router);
        tokio::select! {
            ended = &mut router => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        shutdown.cancel();
        Ok(router.await?)
    })
}

/// Shows what a router knows.
pub fn net(args: NetArgs) -> Result<()> {
    let unreachable = || {
        format!(
            "cannot ask the router at {}; does it run with that controlSocket?",
            args.socket.display()
        )
    };
    match args.view {
        View::Peers { output } => {
            let peers = control::peers(&args.socket).with_context(unreachable)?;
            match output {
                Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&peers)?),
                None => print_table(&PEER_COLUMNS, peers.iter().map(peer_row).collect()),
            }
        }
        View::Routes {
            received,
            advertised,
            output,
        } => {
            let routes =
                control::routes(&args.socket, received, advertised).with_context(unreachable)?;
            match output {
                Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&routes)?),
                None => print_table(&ROUTE_COLUMNS, routes.iter().flat_map(route_rows).collect()),
            }
        }
    }
    Ok(())
}

const PEER_COLUMNS: [&str; 8] = [
    "NEIGHBOR",
    "AS",
    "STATE",
    "SINCE",
    "BFD",
    "RECEIVED",
    "ADVERTISED",
    "LAST ERROR",
];

fn peer_row(shown: &ShownPeer) -> Vec<String> {
    let peer = &shown.peer;
    let sum = |count: fn(&peapod_router::control::FamilyView) -> u32| {
        peer.families
            .iter()
            .map(count)
            .map(u64::from)
            .sum::<u64>()
            .to_string()
    };
    vec![
        peer.name.clone(),
        peer.remote_as.clone(),
        peer.state.to_string(),
        age(peer.since_seconds),
        shown.bfd.clone().unwrap_or_default(),
        sum(|family| family.received),
        sum(|family| family.advertised),
        peer.last_error.clone().unwrap_or_default(),
    ]
}

const ROUTE_COLUMNS: [&str; 7] = [
    "", "PREFIX", "NEXT HOP", "NEIGHBOR", "AS PATH", "AGE", "WHY",
];

/// A row for each path: `*` is the best, `=` shares the load.
fn route_rows(shown: &ShownRoute) -> Vec<Vec<String>> {
    let route = &shown.route;
    let rows = route.paths.iter().enumerate().map(|(nth, path)| {
        let mark = ["*", "=", ""][usize::from(path.choice.rank().min(2))];
        let error = shown.kernel_error.as_ref().filter(|_| nth == 0);
        let why = match error {
            Some(error) => format!("{}; not in the kernel: {error}", path.reason),
            None => path.reason.clone(),
        };
        vec![
            mark.to_owned(),
            if nth == 0 {
                route.prefix.to_string()
            } else {
                String::new()
            },
            path.next_hop.clone().unwrap_or_default(),
            path.peer.clone(),
            path.as_path.clone(),
            route
                .since_seconds
                .map_or(String::new(), |since| age(since.into())),
            why,
        ]
    });
    rows.collect()
}

/// A time span as kubectl shows it.
fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn print_table<const N: usize>(heads: &[&str; N], rows: Vec<Vec<String>>) {
    let mut widths = heads.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("   ").trim_end());
    }
}
