//! One pod, created to Running, beside `ctr run -d` of the same image through the same
//! containerd.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use peapod_tests::Cluster;

use crate::ctr::Ctr;
use crate::pods::{Changes, manifest, pods, runtime};
use crate::report::{Report, alternate, ms, percentile};

const ROUNDS: usize = 20;

/// Alternates the two, so that both see the same machine.
pub fn measure(report: &mut Report) -> Result<()> {
    let cluster = Cluster::up()?;
    let runtime = runtime()?;
    let pods = runtime.block_on(pods(&cluster))?;
    let containerd = Ctr::prepare(&cluster)?;
    let (mut ours, mut bare) = alternate(
        ROUNDS,
        |round| runtime.block_on(one_pod(&pods, round)),
        |round| containerd.run(round),
    )?;
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

async fn one_pod(pods: &Api<Pod>, round: usize) -> Result<Duration> {
    let name = format!("start-{round}");
    let changes = Changes::of(pods, &format!("metadata.name={name}")).await?;
    let started = Instant::now();
    let made = pods
        .create(&PostParams::default(), &manifest(&name)?)
        .await?;
    changes.until_running(1).await?;
    let took = started.elapsed();
    let uid = made.uid().unwrap_or_default();
    let gone = await_condition(pods.clone(), &name, conditions::is_deleted(&uid));
    pods.delete(&name, &DeleteParams::default().grace_period(0))
        .await?;
    gone.await?;
    Ok(took)
}
