//! The tasks of a role and their common end: the first that fails, or a signal, ends the role.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long parts may take to stop; an API server lets the requests in work finish for 10 s. What
/// follows must fit into the time after which `peapod down` kills.
const STOP: Duration = Duration::from_secs(20);

/// What runs in this process, each task under the name of its part.
pub struct Tasks {
    running: Running,
    told: tokio::sync::mpsc::Receiver<()>,
    /// Cancelled when the parts are to stop.
    pub shutdown: CancellationToken,
}

/// The tasks that have not ended.
#[derive(Default)]
struct Running {
    set: JoinSet<Result<()>>,
    parts: HashMap<Id, &'static str>,
}

// === impl Running ===

impl Running {
    /// How the next one ends; `None` when there is none left. Nothing is lost when it is dropped.
    async fn next(&mut self) -> Option<Result<()>> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => {
                let why = anyhow!("it ended unexpectedly: {error}; see the log");
                (error.id(), Err(why))
            }
        };
        let part = self.parts.remove(&id).unwrap_or("a part of peapod");
        Some(outcome.with_context(|| format!("{part} failed")))
    }
}

// === impl Tasks ===

impl Tasks {
    /// None yet. From now on SIGTERM and SIGINT are waited for.
    pub fn new() -> Result<Self> {
        Ok(Self {
            running: Running::default(),
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
        let work = async move { work.await.map_err(Into::into) };
        let id = self.running.set.spawn(work).id();
        self.running.parts.insert(id, part);
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
            Some(ended) = self.running.next() => {
                ended?;
                bail!("a part of peapod stopped during the start; see the log");
            }
            _ = self.told.recv() => bail!("told to stop during the start"),
        }
    }

    /// Waits for a signal, or for the end of a part.
    pub async fn ended(&mut self) -> Result<()> {
        tokio::select! {
            _ = self.told.recv() => Ok(()),
            Some(ended) = self.running.next() => ended,
        }
    }

    /// Tells every part to stop, and waits for them. What takes too long is named in the log, and
    /// given up.
    pub async fn stop(&mut self) {
        let parts = self.stop_within(STOP).await;
        if !parts.is_empty() {
            let parts = parts.join(", ");
            tracing::warn!(parts, limit = ?STOP, "these have not stopped in time and are given up");
        }
    }

    /// The names of those that have not stopped in time, in their order.
    async fn stop_within(&mut self, limit: Duration) -> Vec<&'static str> {
        self.shutdown.cancel();
        let stopping = async {
            while let Some(ended) = self.running.next().await {
                if let Err(error) = ended {
                    tracing::warn!(error = %crate::terminal::sentence(&error), "while stopping");
                }
            }
        };
        if tokio::time::timeout(limit, stopping).await.is_ok() {
            return Vec::new();
        }
        // Not waited for: what does not yield would not end for that either.
        self.running.set.abort_all();
        let mut parts: Vec<_> = self.running.parts.drain().map(|(_, part)| part).collect();
        parts.sort_unstable();
        parts
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
    runtime.shutdown_timeout(Duration::from_secs(2));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_stop_is_named_and_given_up() {
        let mut tasks = Tasks::new().unwrap();
        let shutdown = tasks.shutdown.clone();
        tasks.spawn("the good", async move {
            shutdown.cancelled().await;
            anyhow::Ok(())
        });
        let (held, given_up) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("the stubborn", async move {
            let _held = held;
            std::future::pending::<Result<()>>().await
        });
        tasks.spawn_endless("the endless", std::future::pending());
        let left = tasks.stop_within(Duration::from_millis(50)).await;
        assert_eq!(left, ["the stubborn"]);
        assert!(given_up.await.is_err());
    }

    #[tokio::test]
    async fn a_part_that_panics_ends_the_role_under_its_name() {
        let mut tasks = Tasks::new().unwrap();
        tasks.spawn("the network", async { panic!("no") as Result<()> });
        let error = tasks.ended().await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the network failed: it ended unexpectedly"));
    }
}
