//! Pods of a cluster that is measured.

use std::collections::BTreeSet;
use std::pin::Pin;

use anyhow::{Result, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use peapod_tests::Cluster;
use serde_json::json;

/// The image of every pod here.
pub const IMAGE: &str = "peapod.dev/demo:v1";

/// A runtime of one thread, so that the measuring takes little of the machine.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// The pods of the default namespace.
pub async fn pods(cluster: &Cluster) -> Result<Api<Pod>> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Api::namespaced(Client::try_from(config)?, "default"))
}

/// A pod of one container that serves.
pub fn manifest(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": IMAGE, "args": ["serve"]}],
        },
    }))?)
}

/// A watch of pods that has begun.
pub struct Changes(Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>);

// === impl Changes ===

impl Changes {
    /// Changes from now on of the pods that a field selector takes; empty for all.
    pub async fn of(pods: &Api<Pod>, fields: &str) -> Result<Self> {
        let listed = pods.list(&ListParams::default()).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let mut wanted = WatchParams::default();
        if !fields.is_empty() {
            wanted = wanted.fields(fields);
        }
        Ok(Self(pods.watch(&wanted, &version).await?.boxed()))
    }

    /// Waits until so many pods have been seen Running.
    pub async fn until_running(mut self, count: usize) -> Result<()> {
        let mut seen = BTreeSet::new();
        while let Some(event) = self.0.try_next().await? {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                continue;
            };
            let name = pod.name_any();
            let phase = pod.status.and_then(|status| status.phase);
            if phase.as_deref() == Some("Running") && seen.insert(name) && seen.len() == count {
                return Ok(());
            }
        }
        bail!("the watch of the pods ended before they ran")
    }
}
