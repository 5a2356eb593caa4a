//! Leader election by a Lease, as client-go's `leaderelection` does it.
//!
//! [`judge`] is the core: what one look at the Lease says. How long a lease has not been
//! renewed is measured by this process's own clock from when it saw the last renewal, so that
//! clocks need not agree.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, Result};
use crate::config::LeaderElection;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-controller-manager";

/// The Lease as this process last saw it change.
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// What a look at the Lease says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours: renew it.
    Renew,
    /// It is free, or its holder has not renewed it in time: take it.
    Take,
    /// Another holds it.
    Wait,
}

fn judge(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> Verdict {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let holds_secs = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    match holder {
        _ if holder == identity => Verdict::Renew,
        "" => Verdict::Take,
        _ if unchanged >= Duration::from_secs(holds_secs) => Verdict::Take,
        _ => Verdict::Wait,
    }
}

/// The Lease's next contents, renewed or taken over at `now`.
fn renewed(old: &LeaseSpec, election: &LeaderElection, now: Timestamp) -> LeaseSpec {
    let ours = old.holder_identity.as_deref() == Some(&election.identity);
    let transitions = old.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(election.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(election.lease.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: match ours {
            true => old.acquire_time.clone(),
            false => Some(MicroTime(now)),
        },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
        ..Default::default()
    }
}

/// This process's turn to lead.
pub struct Turn {
    candidate: Candidate,
}

struct Candidate {
    api: Api<Lease>,
    election: LeaderElection,
    seen: Option<Seen>,
}

/// Waits for this process's turn; `None` when shutdown comes first.
pub async fn acquire(
    client: &Client,
    election: &LeaderElection,
    shutdown: &CancellationToken,
) -> Option<Turn> {
    let mut candidate = Candidate {
        api: Api::namespaced(client.clone(), NAMESPACE),
        election: election.clone(),
        seen: None,
    };
    loop {
        match candidate.try_once().await {
            Ok(true) => {
                info!(identity = election.identity, "leading");
                return Some(Turn { candidate });
            }
            Ok(false) => {}
            Err(error) => warn!(%error, "cannot ask for the leader lease; trying again"),
        }
        let wait = tokio::time::sleep(election.retry);
        shutdown.run_until_cancelled(wait).await?;
    }
}

impl Turn {
    /// Renews the lease until shutdown, then gives it back; an error when it is lost.
    pub async fn hold(mut self, shutdown: CancellationToken) -> Result<()> {
        let mut renewed = Instant::now();
        let retry = self.candidate.election.retry;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(retry))
            .await
            .is_some()
        {
            let left = self
                .candidate
                .election
                .lease
                .saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.candidate.try_once()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Err(self.candidate.lost()),
                Ok(Err(error)) => warn!(%error, "cannot renew the leader lease; trying again"),
                Err(_) => return Err(self.candidate.lost()),
            }
        }
        self.candidate.give_back().await;
        Ok(())
    }
}

impl Candidate {
    /// Looks at the Lease once, and takes or renews it if it may; whether it now holds it.
    async fn try_once(&mut self) -> kube::Result<bool> {
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..Default::default()
                },
                spec: Some(renewed(&LeaseSpec::default(), &self.election, now)),
            };
            return held(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            self.seen = Some(Seen {
                spec: spec.clone(),
                at: Instant::now(),
            });
        }
        let unchanged = self.seen.as_ref().map(|seen| seen.at.elapsed());
        if judge(
            &spec,
            &self.election.identity,
            unchanged.unwrap_or_default(),
        ) == Verdict::Wait
        {
            return Ok(false);
        }
        lease.spec = Some(renewed(&spec, &self.election, now));
        held(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Lets the next candidate lead at once.
    async fn give_back(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.election.identity) {
            spec.holder_identity = Some(String::new());
            if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
                warn!(%error, "the leader lease was not given back; it runs out by itself");
            }
        }
    }

    fn lost(&self) -> Error {
        let holder = self
            .seen
            .as_ref()
            .and_then(|seen| seen.spec.holder_identity.clone());
        Error::LeaseLost {
            lease: format!("{NAMESPACE}/{NAME}"),
            holder: holder.unwrap_or_else(|| "nobody (it could not be renewed)".to_owned()),
        }
    }
}

/// A conflict means that another candidate was quicker.
fn held(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..Default::default()
        }
    }

    #[test]
    fn who_may_lead() {
        for (holder, unchanged_secs, verdict) in [
            ("me", 0, Verdict::Renew),
            ("me", 60, Verdict::Renew),
            ("", 0, Verdict::Take),
            ("other", 14, Verdict::Wait),
            ("other", 15, Verdict::Take),
        ] {
            let unchanged = Duration::from_secs(unchanged_secs);
            assert_eq!(judge(&spec(holder), "me", unchanged), verdict, "{holder}");
        }
    }

    #[test]
    fn a_takeover_is_counted_a_renewal_is_not() {
        let election = LeaderElection {
            identity: "me".into(),
            lease: Duration::from_secs(15),
            retry: Duration::from_secs(2),
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let taken = renewed(&spec("other"), &election, now);
        assert_eq!(taken.lease_transitions, Some(4));
        assert_eq!(taken.acquire_time, Some(MicroTime(now)));
        let again = renewed(&taken, &election, now + jiff::SignedDuration::from_secs(2));
        assert_eq!(again.lease_transitions, Some(4));
        assert_eq!(again.acquire_time, Some(MicroTime(now)));
    }
}
