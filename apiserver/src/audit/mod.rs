//! The audit log: who did what, when, and how it ended, as a policy wants it recorded.
//!
//! [`policy`] decides without IO what is recorded of a request; [`event`] builds the records;
//! [`log`] writes them, bounded: a disk that is slow or full never stops a request, and what is
//! lost is counted.

pub mod event;
pub mod log;
pub mod policy;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use event::Asked;
use log::{Log, LogConfig, LogError};
use policy::{Level, Policy, PolicyError, Settings, Stage};

use crate::auth::action::Action;
use crate::auth::user::User;

/// What is configured: a policy, and where its records go.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The file of the policy: an `audit.k8s.io/v1` `Policy`.
    pub policy: std::path::PathBuf,
    /// Where the records go.
    pub log: LogConfig,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The audit log.
pub struct Audit {
    policy: Policy,
    log: Arc<Log>,
}

/// The record of one request, written stage by stage.
pub struct Record {
    log: Arc<Log>,
    settings: Settings,
    asked: Asked,
}

// === impl Audit ===

impl Audit {
    /// Reads the policy and opens the log; `lost` counts records that cannot be written. Must be
    /// called within a tokio runtime.
    pub fn open(config: &AuditConfig, lost: Counter) -> Result<Self, AuditError> {
        Ok(Self {
            policy: Policy::read(&config.policy)?,
            log: Arc::new(Log::open(&config.log, lost)?),
        })
    }

    /// Begins the record of a request; `None` when the policy wants none.
    pub fn begin(
        &self,
        user: &User,
        action: &Action<'_>,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Record> {
        let settings = self.policy.decide(user, action);
        (settings.level != Level::None).then(|| Record {
            log: self.log.clone(),
            settings,
            asked: asked(),
        })
    }

    /// Writes what waits, and ends.
    pub async fn close(&self) {
        self.log.close().await;
    }
}

// === impl Record ===

impl Record {
    /// Whether bodies are recorded: (the request's, the response's).
    pub fn wants_bodies(&self) -> (bool, bool) {
        let level = self.settings.level;
        (level >= Level::Request, level >= Level::RequestResponse)
    }

    /// Records a stage.
    pub fn stage(&self, stage: Stage, change: impl FnOnce(&mut event::Event)) {
        if self.settings.omits(stage) {
            return;
        }
        let mut event = event::Event::new(&self.asked, self.settings.level, stage);
        change(&mut event);
        if self.settings.omit_managed_fields {
            event.omit_managed_fields();
        }
        self.log.write(event.to_line(jiff::Timestamp::now()));
    }
}
