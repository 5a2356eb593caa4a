//! The tasks of a role and their common end: the first that fails, or a signal, ends the role.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Ended = std::result::Result<(&'static str, Result<()>), tokio::task::JoinError>;

/// What runs in this process, each task under the name of its part.
pub struct Tasks {
    set: JoinSet<(&'static str, Result<()>)>,
    told: tokio::sync::mpsc::Receiver<()>,
    /// Cancelled when the parts are to stop.
    pub shutdown: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    /// None yet. From now on SIGTERM and SIGINT are waited for.
    pub fn new() -> Result<Self> {
        Ok(Self {
            set: JoinSet::new(),
            told: stop_signals()?,
            shutdown: CancellationToken::new(),
        })
    }

    /// Runs a part.
    pub fn spawn<E>(
        &mut self,
        part: &'static str,
        work: impl Future<Output = std::result::Result<(), E>> + Send + 'static,
    ) where
        E: Into<anyhow::Error>,
    {
        self.set
            .spawn(async move { (part, work.await.map_err(Into::into)) });
    }

    /// Runs a part that goes on for ever, and holds nothing that it must let go of in order: it is
    /// dropped when the parts are to stop.
    pub fn spawn_endless(
        &mut self,
        part: &'static str,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let stop = self.shutdown.clone();
        self.spawn(part, async move {
            stop.run_until_cancelled(work).await.unwrap_or(Ok(()))
        });
    }

    /// Does something of the start; a part that ends meanwhile ends the start.
    pub async fn while_starting<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            Some(ended) = self.set.join_next() => {
                outcome(ended)?;
                bail!("a part of peapod stopped during the start; see the log");
            }
            _ = self.told.recv() => bail!("told to stop during the start"),
        }
    }

    /// Waits for a signal, or for the end of a part.
    pub async fn ended(&mut self) -> Result<()> {
        tokio::select! {
            _ = self.told.recv() => Ok(()),
            Some(ended) = self.set.join_next() => outcome(ended),
        }
    }

    /// Tells every part to stop, and waits for them.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.set.join_next().await {
            if let Err(error) = outcome(ended) {
                tracing::warn!(error = %crate::terminal::sentence(&error), "while stopping");
            }
        }
    }
}

/// SIGTERM and SIGINT as one stream.
fn stop_signals() -> Result<tokio::sync::mpsc::Receiver<()>> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot wait for signals")?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A second signal while the first is handled says nothing new.
                let _ = tell.try_send(());
            }
        });
    }
    Ok(told)
}

fn outcome(ended: Ended) -> Result<()> {
    match ended {
        Ok((part, outcome)) => outcome.with_context(|| format!("{part} failed")),
        Err(error) => bail!("a part of peapod ended unexpectedly: {error}; see the log"),
    }
}

/// Runs a role on an event loop of its own, logging to stderr.
pub fn run(role: impl Future<Output = Result<()>>) -> Result<()> {
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.spawn(crate::footprint::shrink_after_start());
    let outcome = runtime.block_on(role);
    // Blocking work that hangs (a mount, a dead disk) must not keep a stopped role alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PEAPOD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_client=warn"));
    // A log on a full disk must not end what it tells of: complaints would go to the same disk.
    tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
