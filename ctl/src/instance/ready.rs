//! When a cluster is ready: its node says so, and the cluster's DNS answers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};

use super::settings::Settings;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the node and for DNS.
pub async fn wait(client: Client, settings: &Settings) -> Result<()> {
    let both = async {
        node(client, &settings.node).await?;
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, both).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("node {} was not ready after {PATIENCE:?}", settings.node),
    }
}

async fn node(client: Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let is_ready = |node: Option<&Node>| {
        let status = node.and_then(|node| node.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref());
        peapod_api::conditions::is_true(conditions.unwrap_or_default(), "Ready")
    };
    await_condition(nodes, name, is_ready)
        .await
        .context("cannot watch the node")?;
    Ok(())
}
