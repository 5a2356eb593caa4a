//! Asking the API for turns, and running the work in them.
//!
//! ```text
//!   acquire ──held──▶ work ∥ renew ──work ended──▶ release ──▶ end
//!      ▲                 │
//!      └──work stopped───┴ lost
//! ```
//!
//! While another leads, a watch of the Lease says when it is released, and a timer when it runs
//! out: nothing is polled.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::candidate::{Candidate, Election, Step};

/// How long the release at the end may take: whoever waits for it does so for the process's end.
const RELEASE: Duration = Duration::from_secs(3);

/// Does `work` whenever this process leads, until `shutdown`, or until the work ends by itself.
///
/// `work` is given a token that is cancelled when its turn or the process ends. Then it has until
/// the lease runs out for ending; whatever is left of it is dropped. After a lost turn the process
/// becomes a candidate again. When the work has ended the lease is released, for the next to lead at once.
///
/// # Errors
/// What the work ended with.
pub async fn lead<F, E>(
    client: Client,
    election: Election,
    shutdown: CancellationToken,
    mut work: impl FnMut(CancellationToken) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut shell = Shell::new(client, election);
    while shell.acquire(&shutdown).await.is_some() {
        let turn = shutdown.child_token();
        let mut working = pin!(work(turn.clone()));
        let ended = tokio::select! {
            ended = &mut working => Some(ended),
            () = shell.renew() => None,
        };
        if let Some(ended) = ended {
            shell.release().await;
            return ended;
        }
        shell.lost();
        turn.cancel();
        let ended_by = shell.ended_by();
        shell.candidate.step_down();
        match timeout_at(ended_by, working).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "what was done as the leader ended badly"),
            Err(_) => warn!("what was done as the leader was cut off"),
        }
    }
    Ok(())
}

struct Shell {
    api: Api<Lease>,
    candidate: Candidate,
    began: Instant,
}

/// What is known after one look.
enum Looked {
    /// The lease is held.
    Held,
    /// Another holds it: until when, and the version that says so.
    Wait(Instant, String),
    /// Somebody was quicker: look again.
    Again,
}

// === impl Shell ===

impl Shell {
    fn new(client: Client, election: Election) -> Self {
        Self {
            api: Api::namespaced(client, &election.namespace),
            candidate: Candidate::new(election),
            began: Instant::now(),
        }
    }

    fn retry(&self) -> Duration {
        self.candidate.election().retry
    }

    fn name(&self) -> &str {
        &self.candidate.election().name
    }

    /// Until when this process leads; now, when it does not.
    fn leads_until(&self) -> Instant {
        self.began + self.candidate.leads_until().unwrap_or_default()
    }

    /// Until when what it did as a leader must have ended.
    fn ended_by(&self) -> Instant {
        self.began + self.candidate.ended_by().unwrap_or_default()
    }

    /// Waits for this process's turn; `None` when shutdown comes first.
    async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<()> {
        let Election { name, identity, .. } = self.candidate.election().clone();
        let mut told = None;
        let turn = async {
            loop {
                let patience = self.candidate.election().renew_deadline;
                match timeout(patience, self.look()).await {
                    Ok(Ok(Looked::Held)) => return,
                    Ok(Ok(Looked::Again)) => {}
                    Ok(Ok(Looked::Wait(until, version))) => {
                        let holder = self.candidate.holder().map(str::to_owned);
                        if told != holder {
                            info!(lease = name, holder, "another leads; waiting");
                            told = holder;
                        }
                        self.wait(until, &version).await;
                        continue;
                    }
                    Ok(Err(error)) => {
                        warn!(lease = name, %error, "cannot ask for the lease; trying again");
                    }
                    Err(_) => warn!(lease = name, "no answer about the lease; trying again"),
                }
                sleep(self.retry()).await;
            }
        };
        shutdown.run_until_cancelled(turn).await?;
        info!(lease = name, identity, "leading");
        Some(())
    }

    /// Waits until the Lease is other than at `version` and may be taken, or runs out.
    async fn wait(&mut self, mut until: Instant, version: &str) {
        let api = self.api.clone();
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name()));
        let mut changes = match timeout(self.retry(), api.watch(&params, version)).await {
            Ok(Ok(changes)) => Box::pin(changes),
            // Whoever may not watch looks now and then.
            _ => return sleep(self.retry()).await,
        };
        loop {
            let event = tokio::select! {
                event = changes.try_next() => event,
                () = sleep_until(until) => return,
            };
            match event {
                Ok(Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease))) => {
                    let at = self.began.elapsed();
                    match self.candidate.look(Some(&lease), at, Timestamp::now()) {
                        Step::Wait(at) => until = self.began + at,
                        Step::Create(_) | Step::Replace(_) => return,
                    }
                }
                Ok(Some(WatchEvent::Deleted(_))) => return,
                Ok(Some(WatchEvent::Bookmark(_))) => {}
                Ok(None) => return,
                Ok(Some(WatchEvent::Error(_))) | Err(_) => return sleep(self.retry()).await,
            }
        }
    }

    /// Renews until the turn is over: another holds the lease, or it could not be renewed in time.
    async fn renew(&mut self) {
        loop {
            let until = self.leads_until();
            let renewal = async {
                sleep(self.retry()).await;
                self.look().await
            };
            match timeout_at(until, renewal).await {
                Ok(Ok(Looked::Held | Looked::Again)) => {}
                Ok(Ok(Looked::Wait(..))) | Err(_) => return,
                Ok(Err(error)) => {
                    warn!(lease = self.name(), %error, "cannot renew the lease; trying again");
                }
            }
        }
    }

    /// Looks at the Lease once, and takes or renews it if it may.
    async fn look(&mut self) -> kube::Result<Looked> {
        let found = self.api.get_opt(self.name()).await?;
        let sent = self.began.elapsed();
        let params = PostParams::default();
        let written = match self.candidate.look(found.as_ref(), sent, Timestamp::now()) {
            Step::Wait(at) => {
                let version = found.and_then(|lease| lease.metadata.resource_version);
                return Ok(Looked::Wait(self.began + at, version.unwrap_or_default()));
            }
            Step::Create(lease) => self.api.create(&params, &lease).await,
            Step::Replace(lease) => self.api.replace(self.name(), &params, &lease).await,
        };
        match written {
            Ok(lease) => {
                self.candidate.wrote(&lease, sent);
                Ok(Looked::Held)
            }
            // Another created, changed or deleted it meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Looked::Again),
            Err(error) => Err(error),
        }
    }

    fn lost(&self) {
        let identity = &self.candidate.election().identity;
        let holder = self.candidate.holder().filter(|holder| holder != identity);
        let why = holder.map_or("it could not be renewed in time".to_owned(), |holder| {
            format!("{holder} holds it now")
        });
        warn!(
            lease = self.name(),
            why, "the lease was lost: leading no more"
        );
    }

    /// Lets the next candidate lead at once.
    async fn release(&mut self) {
        self.candidate.step_down();
        let name = self.name().to_owned();
        let releasing = async {
            // A renewal may be under way yet, and make the first attempt a conflict.
            for _ in 0..3 {
                let Some(lease) = self.api.get_opt(&name).await? else {
                    return Ok(());
                };
                let Some(free) = self.candidate.released(&lease, Timestamp::now()) else {
                    return Ok(());
                };
                match self.api.replace(&name, &PostParams::default(), &free).await {
                    Ok(_) => return Ok(()),
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match timeout(RELEASE, releasing).await {
            Ok(Ok(())) => info!(lease = name, "leading no more; the lease is released"),
            Ok(Err(error)) => {
                warn!(lease = name, %error, "the lease was not released; it runs out by itself");
            }
            Err(_) => warn!(
                lease = name,
                "the lease was not released; it runs out by itself"
            ),
        }
    }
}
