//! One file or folder per control loop, all of one skeleton.
//!
//! This crate owns the loops that make the cluster what its objects say: workloads
//! ([`deployment`], [`replicaset`], [`statefulset`], [`daemonset`], [`job`], [`cronjob`],
//! [`disruption`]) and how many pods they need ([`horizontal`]), what services point to
//! ([`endpointslice`], [`endpoints`]), the ranges of their addresses ([`service_cidr`]) and the
//! addresses of load balancers ([`load_balancer`]),
//! nodes, their health and addresses ([`node`], [`ipblock`]), how they speak BGP ([`bgp_peer`], [`bgp_tables`]),
//! their certificates and tokens ([`certificates`], [`bootstrap_token`], [`bootstrap_signer`]),
//! the life and death of objects ([`namespace`], [`gc`], [`pod_gc`]), what every namespace has
//! ([`service_account`]) and may use ([`quota`]), roles made of others
//! ([`cluster_role_aggregation`]), volumes and claims ([`volume`]), and what their drivers do for
//! them ([`csi`]). It owns nothing that is not in the API, and must not know the other parts: it
//! meets them over a `kube::Client`.
//!
//! # How to write a controller
//!
//! 1. **The core**: a pure function `reconcile(observed.., now) -> actions` in a file of its
//!    own. No client, no clock, no random number. Test it by golden files: a folder under
//!    `golden/`, each file an input and what must come of it (see `common::testing`).
//! 2. **The shell**: a struct with a [`shell::Context`] that implements [`shell::Controller`]:
//!    read the informers, call the core, carry out its actions by [`shell::write`]. Errors are
//!    returned, never retried inside: the queue does that.
//! 3. **The wiring**: `pub fn start(ctx, tasks)` makes a [`shell::Loop`], says which changes of
//!    which kinds wake which keys, and runs it. Add it to [`run`].
//! 4. A loop that counts its creations keeps [`shell::expectations`], so that a stale cache
//!    cannot make it create twice.
//!
//! Loops are level-triggered: a key says only that something about an object may have changed.
//! There is no resync and no polling; a timer only stands for a deadline that the objects
//! themselves name, returned as [`shell::Outcome::After`].

pub mod common;
pub mod config;
pub mod shell;

pub mod bgp_peer;
pub mod bgp_tables;
pub mod bootstrap_signer;
pub mod bootstrap_token;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cronjob;
pub mod csi;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod gc;
pub mod horizontal;
pub mod ipblock;
pub mod job;
pub mod load_balancer;
pub mod namespace;
pub mod node;
pub mod pod_gc;
pub mod quota;
pub mod replicaset;
pub mod service_account;
pub mod service_cidr;
pub mod statefulset;
pub mod volume;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use config::{BlockRange, Config};
pub use shell::metrics::Metrics;
pub use shell::{Error, Result};

use shell::{Context, Tasks};

/// Runs every controller until `shutdown` is cancelled. Only one process of a cluster may: who it
/// is, is decided outside.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<()> {
    start(client, config, shutdown).wait().await
}

fn start(client: Client, config: Config, shutdown: CancellationToken) -> Tasks {
    let metrics = config.metrics.clone();
    let (ctx, events) = Context::new(client, config, metrics);
    let mut tasks = Tasks::new(shutdown);
    tasks.spawn("events", events.run());
    deployment::start(&ctx, &mut tasks);
    replicaset::start(&ctx, &mut tasks);
    statefulset::start(&ctx, &mut tasks);
    daemonset::start(&ctx, &mut tasks);
    job::start(&ctx, &mut tasks);
    cronjob::start(&ctx, &mut tasks);
    service_account::start(&ctx, &mut tasks);
    ipblock::start(&ctx, &mut tasks);
    bgp_peer::start(&ctx, &mut tasks);
    bgp_tables::start(&ctx, &mut tasks);
    load_balancer::start(&ctx, &mut tasks);
    endpointslice::start(&ctx, &mut tasks);
    endpoints::start(&ctx, &mut tasks);
    service_cidr::start(&ctx, &mut tasks);
    node::start(&ctx, &mut tasks);
    pod_gc::start(&ctx, &mut tasks);
    quota::start(&ctx, &mut tasks);
    volume::start(&ctx, &mut tasks);
    csi::start(&ctx, &mut tasks);
    disruption::start(&ctx, &mut tasks);
    horizontal::start(&ctx, &mut tasks);
    cluster_role_aggregation::start(&ctx, &mut tasks);
    certificates::start(&ctx, &mut tasks);
    bootstrap_signer::start(&ctx, &mut tasks);
    bootstrap_token::start(&ctx, &mut tasks);
    let namespaces = namespace::start(&ctx, &mut tasks);
    gc::start(&ctx, &mut tasks, namespaces);
    ctx.watch(&mut tasks);
    tasks
}
