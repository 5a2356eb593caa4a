//! `peapod router`: a BGP router with no cluster.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use peapod_router::RouterConfig;
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

/// Runs a router until it is told to stop. Its routes stay in the kernel.
pub fn run(args: &RouterArgs) -> Result<()> {
    let config = RouterConfig::read(&args.config)?;
    let filter = EnvFilter::try_from_env("PEAPOD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .log_internal_errors(false)
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
