//! What a pod may declare, over the whole system, by kubectl: a file for each field of features.

mod cpus;
mod declared;
mod devices;
mod eviction;
mod fields;
mod hostile;
mod images;
mod node;
mod processes;
mod resize;
mod shutdown;
mod survival;
mod users;
mod whole_pod;

use anyhow::Result;
use peapod_tests::Cluster;

/// Waits until a pod is ready.
fn ready(cluster: &Cluster, pod: &str) -> Result<String> {
    let line = format!("wait --for=condition=Ready pod/{pod} --timeout=60s");
    cluster.kubectl(&line)?.ok()
}
