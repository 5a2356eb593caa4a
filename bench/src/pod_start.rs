//! One pod, created to Running, beside `ctr run -d` of the same image through the same
//! containerd.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config, ResourceExt};
use peapod_tests::{Cluster, command};
use serde_json::json;

use crate::report::{Report, ms, percentile};

const ROUNDS: usize = 20;
/// Of the reference, in containerd.
const NAMESPACE: &str = "peapod-bench";
/// The image of every pod here.
pub const IMAGE: &str = "peapod.dev/demo:v1";

/// Alternates the two, so that both see the same machine.
pub fn measure(report: &mut Report) -> Result<()> {
    let cluster = Cluster::up()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pods = runtime.block_on(pods(&cluster))?;
    let containerd = Ctr::prepare(&cluster)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(runtime.block_on(one_pod(&pods, round))?);
        bare.push(containerd.run(round)?);
    }
    let (p50, reference) = (percentile(&mut ours, 50), percentile(&mut bare, 50));
    let ratio = p50.as_secs_f64() / reference.as_secs_f64();
    let spread = format!(
        "{} p50, {} p99, {ratio:.2} x",
        ms(p50),
        ms(percentile(&mut ours, 99))
    );
    report.add(
        "one pod, created to Running",
        spread,
        "50 ms p50, 200 ms p99",
        format!("ctr run -d {} p50", ms(reference)),
    );
    Ok(())
}

/// The pods of the default namespace.
pub async fn pods(cluster: &Cluster) -> Result<Api<Pod>> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Api::namespaced(Client::try_from(config)?, "default"))
}

async fn one_pod(pods: &Api<Pod>, round: usize) -> Result<Duration> {
    let name = format!("start-{round}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": IMAGE, "args": ["serve"]}],
        },
    }))?;
    let watched = WatchParams::default().fields(&format!("metadata.name={name}"));
    let version = pods
        .list(&Default::default())
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let mut changes = pods.watch(&watched, &version).await?.boxed();
    let started = Instant::now();
    let made = pods.create(&PostParams::default(), &pod).await?;
    while let Some(event) = changes.try_next().await? {
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
            continue;
        };
        if pod.status.and_then(|status| status.phase).as_deref() == Some("Running") {
            let took = started.elapsed();
            let uid = made.uid().unwrap_or_default();
            let gone = await_condition(pods.clone(), &name, conditions::is_deleted(&uid));
            pods.delete(&name, &DeleteParams::default().grace_period(0))
                .await?;
            gone.await?;
            return Ok(took);
        }
    }
    anyhow::bail!("the watch of {name} ended before the pod ran")
}

/// The same image through the same containerd, in a namespace of our own, removed at the end.
pub struct Ctr {
    socket: PathBuf,
}

impl Ctr {
    /// At a socket, with nothing.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// At the cluster's containerd, with the image.
    pub fn prepare(cluster: &Cluster) -> Result<Self> {
        let state = cluster.peapod(["status", "-o", "json"])?.ok()?;
        let state: serde_json::Value = serde_json::from_str(&state)?;
        let socket = state["containerd"]
            .as_str()
            .context("status names no containerd")?;
        let ctr = Self::at(socket.into());
        let archive = command::demo_archive("v1")?;
        ctr.ctr(&["images", "import", &archive.to_string_lossy()])?;
        Ok(ctr)
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let mut all = vec!["--address", &*socket, "--namespace", NAMESPACE];
        all.extend(args);
        command::run("ctr", all)?.ok()
    }

    fn run(&self, round: usize) -> Result<Duration> {
        let id = format!("bare-{round}");
        let started = Instant::now();
        self.start(&id)?;
        let took = started.elapsed();
        self.remove(&id)?;
        Ok(took)
    }

    /// Runs a container.
    pub fn start(&self, id: &str) -> Result<()> {
        self.ctr(&["run", "-d", IMAGE, id]).map(drop)
    }

    /// Pulls an image over plain HTTP.
    pub fn pull(&self, image: &str) -> Result<()> {
        self.ctr(&["images", "pull", "--plain-http", image])
            .map(drop)
    }

    /// Forgets an image and, at once, what it is made of.
    pub fn forget(&self, image: &str) -> Result<()> {
        self.ctr(&["images", "remove", "--sync", image]).map(drop)
    }

    /// Removes it.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "delete", "--force", id])?;
        self.ctr(&["container", "delete", id]).map(drop)
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        let removed = self
            .forget(IMAGE)
            .and_then(|()| self.ctr(&["namespaces", "remove", NAMESPACE]));
        if let Err(error) = removed {
            eprintln!("the reference could not be removed: {error:#}");
        }
    }
}
