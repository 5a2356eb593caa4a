//! The API's heart: what every request handler works with.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::aggregation::Aggregation;
use crate::audit::Audit;
use crate::auth::authorizer::Authorizer;
use crate::auth::bearer::Bearers;
use crate::auth::rbac::Rbac;
use crate::auth::tokens::Tokens;
use crate::components::Hosted;
use crate::config::Config;
use crate::flow::Flow;
use crate::metrics::Metrics;
use crate::placements::Placements;
use crate::pools::ranges::ServiceRanges;
use crate::proxy::Kubelets;
use crate::registry::Registry;
use crate::storage::Store;
use crate::usage::Usage;

/// Everything that request handlers share.
pub struct Api {
    /// The kinds.
    pub registry: Arc<Registry>,
    /// The objects.
    pub store: Store,
    /// What changes or refuses writes.
    pub admission: admission::Chain,
    /// Whose turn it is among the writers of namespaces with quotas.
    pub quota_turns: admission::quota::Turns,
    /// Which requests are worked on, and which wait.
    pub flow: Flow,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// What roles and bindings grant.
    pub rbac: Rbac,
    /// Whose tokens are taken, beside those of service accounts.
    pub bearers: Bearers,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// Service account tokens.
    pub tokens: Tokens,
    /// The way to the nodes' kubelet API.
    pub kubelets: Kubelets,
    /// What other servers serve.
    pub aggregation: Aggregation,
    /// Where pods have been.
    pub placements: Placements,
    /// From which ranges Services get their addresses.
    pub service_ranges: ServiceRanges,
    /// The parts of the cluster that run in this process.
    pub hosted: Hosted,
    /// What nodes and pods use.
    pub usage: Usage,
    /// The objects' protobuf forms.
    pub messages: crate::storage::Messages,
    /// Objects of watch events, in forms that several watches show.
    pub watched: Arc<crate::rest::watch::shared::Shared>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Cancelled when the server stops: watches and streams end.
    pub draining: CancellationToken,
    /// The configuration.
    pub config: Config,
}

// === impl Api ===

impl Api {
    /// The present time. Pure code gets it as an argument.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
