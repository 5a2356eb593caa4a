//! What a candidate knows of the Lease, and what it should do. Pure: times are told.
//!
//! `Duration`s named `at` are times of the candidate's own monotonic clock since its start.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;

/// How long a released lease would hold: the least that is valid, as client-go writes it.
const RELEASED_SECS: i32 = 1;

/// Who takes turns, and by which Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This process among the candidates; unique, as `host_uuid`.
    pub identity: String,
    /// How long the lease holds without renewal; whole seconds.
    pub lease: Duration,
    /// How long a leader tries to renew before it gives up; less than `lease`.
    pub renew_deadline: Duration,
    /// How often it is renewed, and how soon tried again after a failure.
    pub retry: Duration,
}

/// The Lease as this candidate last saw it change.
#[derive(Clone, Debug)]
struct Seen {
    spec: LeaseSpec,
    at: Duration,
}

/// What a look at the Lease says.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is none: create this one.
    Create(Box<Lease>),
    /// It is ours, free, or run out: write this over it, at its version.
    Replace(Box<Lease>),
    /// Another holds it: at this time it runs out, unless it changes before.
    Wait(Duration),
}

/// One of the candidates.
#[derive(Clone, Debug)]
pub struct Candidate {
    election: Election,
    seen: Option<Seen>,
    /// When the last renewal that was acknowledged was sent.
    renewed: Option<Duration>,
}

// === impl Election ===

impl Election {
    /// Upstream's times, and its namespace.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

// === impl Candidate ===

impl Candidate {
    /// Has seen nothing yet.
    pub fn new(election: Election) -> Self {
        Self {
            election,
            seen: None,
            renewed: None,
        }
    }

    /// Who takes part in what.
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// Who held the Lease when it was last seen.
    pub fn holder(&self) -> Option<&str> {
        let holder = self.seen.as_ref()?.spec.holder_identity.as_deref();
        holder.filter(|holder| !holder.is_empty())
    }

    /// Until when this candidate leads; `None` when it does not.
    pub fn leads_until(&self) -> Option<Duration> {
        Some(self.renewed? + self.election.renew_deadline)
    }

    /// Until when what it did as a leader must have ended.
    pub fn ended_by(&self) -> Option<Duration> {
        Some(self.renewed? + self.election.lease)
    }

    /// Looks at the Lease as it is, and says what to do. `now` goes into the Lease, for people.
    pub fn look(&mut self, lease: Option<&Lease>, at: Duration, now: Timestamp) -> Step {
        let Some(lease) = lease else {
            self.seen = None;
            let election = &self.election;
            return Step::Create(Box::new(Lease {
                metadata: ObjectMeta {
                    name: Some(election.name.clone()),
                    namespace: Some(election.namespace.clone()),
                    ..Default::default()
                },
                spec: Some(self.taken(&LeaseSpec::default(), now)),
            }));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            let spec = spec.clone();
            self.seen = Some(Seen { spec, at });
        }
        let since = self.seen.as_ref().map_or(at, |seen| seen.at);
        let runs_out = since + holds(&spec);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.election.identity && at < runs_out {
            return Step::Wait(runs_out);
        }
        Step::Replace(Box::new(Lease {
            metadata: lease.metadata.clone(),
            spec: Some(self.taken(&spec, now)),
        }))
    }

    /// A write that was sent at `sent` was acknowledged with this Lease: this candidate leads.
    pub fn wrote(&mut self, lease: &Lease, sent: Duration) {
        let spec = lease.spec.clone().unwrap_or_default();
        self.seen = Some(Seen { spec, at: sent });
        self.renewed = Some(sent);
    }

    /// Leads no more.
    pub fn step_down(&mut self) {
        self.renewed = None;
    }

    /// The Lease without a holder, so that the next leads at once; `None` when another holds it.
    pub fn released(&self, lease: &Lease, now: Timestamp) -> Option<Lease> {
        let spec = lease.spec.clone()?;
        if spec.holder_identity.as_deref() != Some(&self.election.identity) {
            return None;
        }
        Some(Lease {
            metadata: lease.metadata.clone(),
            spec: Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(RELEASED_SECS),
                renew_time: Some(MicroTime(now)),
                ..spec
            }),
        })
    }

    /// The Lease's contents, renewed or taken over.
    fn taken(&self, old: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        let election = &self.election;
        let ours = old.holder_identity.as_deref() == Some(&election.identity);
        let transitions = old.lease_transitions.unwrap_or(0);
        let first = old.holder_identity.is_none();
        LeaseSpec {
            holder_identity: Some(election.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(election.lease.as_secs())
                    .unwrap_or(i32::MAX)
                    .max(1),
            ),
            acquire_time: match ours {
                true => old.acquire_time.clone(),
                false => Some(MicroTime(now)),
            },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(match ours || first {
                true => transitions,
                false => transitions.saturating_add(1),
            }),
            ..Default::default()
        }
    }
}

/// How long a lease holds after a renewal.
fn holds(spec: &LeaseSpec) -> Duration {
    let secs = spec.lease_duration_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

#[cfg(test)]
mod tests;
