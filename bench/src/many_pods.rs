//! A hundred pods on one node: how long they take at once, beside a bare loop of `ctr run -d`, and what
//! they cost while they idle.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, DeleteParams, ListParams, PostParams};
use peapod_tests::{Cluster, wait};

use crate::ctr::Ctr;
use crate::footprint::{self, Idle};
use crate::pods::{Changes, manifest, pods, runtime};
use crate::process::mb;
use crate::report::{Report, ms};

/// How many.
pub const PODS: usize = 100;
/// As many as the node agent starts at once.
const AT_ONCE: usize = 16;
/// After this a process holds what it needs to run.
pub const STARTED: Duration = Duration::from_secs(20);
/// After this an instance does not come back.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two tries of a command; how exact the figure is.
const AGAIN: Duration = Duration::from_millis(5);

/// All of it, on one cluster.
pub fn measure(report: &mut Report, idle_seconds: u64) -> Result<()> {
    let cluster = Cluster::up()?;
    let runtime = runtime()?;
    let pods = runtime.block_on(pods(&cluster))?;
    let ctr = Ctr::prepare(&cluster)?;
    let bare = bare(&ctr)?;
    // A process lets go of what its start needed once, which would be counted as the pods'.
    std::thread::sleep(STARTED);
    let before = footprint::pss_of_all()?;
    let ours = runtime.block_on(all_at_once(&pods))?;
    report.add(
        "100 pods at once, all Running",
        format!(
            "{}, {:.2} x",
            ms(ours),
            ours.as_secs_f64() / bare.as_secs_f64()
        ),
        "1.3 x",
        format!("ctr run -d, {AT_ONCE} at once: {}", ms(bare)),
    );
    std::thread::sleep(Duration::from_secs(5));
    let (after, parts) = (footprint::pss_of_all()?, footprint::parts()?);
    report.add(
        "PSS beyond its own processes, a pod",
        mb(after.saturating_sub(before) / PODS as u64),
        "3 MB",
        parts,
    );
    let whole = "the whole of peapod";
    let idle = Idle::over(cluster.pid()?, idle_seconds)?;
    report.add(
        "CPU, idle, 100 pods",
        idle.share(),
        "1 % of a core",
        format!("{whole}, over {idle_seconds} s"),
    );
    report.add(
        "RSS, idle, 100 pods",
        mb(idle.rss),
        "40 MB (nodelet + netd)",
        whole.to_owned(),
    );
    runtime.block_on(killed(report, &cluster, &pods))?;
    runtime.block_on(async {
        let (delete, list) = (DeleteParams::default(), ListParams::default());
        pods.delete_collection(&delete, &list).await.map(drop)
    })?;
    wait::until("the pods to be gone", || {
        Ok(runtime
            .block_on(pods.list(&ListParams::default()))?
            .items
            .is_empty())
    })
}

/// From the start after a kill to a command that runs in a pod.
async fn killed(report: &mut Report, cluster: &Cluster, pods: &Api<Pod>) -> Result<()> {
    cluster.crash()?;
    let begun = Instant::now();
    cluster.start()?;
    let started = begun.elapsed();
    while let Err(error) = command(pods).await {
        if begun.elapsed() > LIMIT {
            return Err(error);
        }
        tokio::time::sleep(AGAIN).await;
    }
    report.add(
        "kill -9 to full control, 100 pods",
        ms(begun.elapsed()),
        "300 ms",
        format!("of it `peapod up` {}, API server included", ms(started)),
    );
    Ok(())
}

/// Runs a command in one of the pods.
async fn command(pods: &Api<Pod>) -> Result<()> {
    let words = ["peapod-demo", "get", "http://127.0.0.1:8080/"];
    let mut running = pods.exec("many-0", words, &AttachParams::default()).await?;
    let ended = running.take_status().context("it has no status")?;
    let status = ended.await.and_then(|status| status.status);
    match status.as_deref() {
        Some("Success") => Ok(()),
        other => bail!("the command ended with {other:?}"),
    }
}

/// From the first creation until all run.
pub async fn all_at_once(pods: &Api<Pod>) -> Result<Duration> {
    let changes = Changes::of(pods, "").await?;
    let started = Instant::now();
    let create = stream::iter(0..PODS).map(|n| async move {
        let pod = manifest(&format!("many-{n}"))?;
        pods.create(&PostParams::default(), &pod).await?;
        anyhow::Ok(())
    });
    let create = create.buffer_unordered(AT_ONCE).try_collect::<()>();
    let running = async {
        changes.until_running(PODS).await?;
        Ok(started.elapsed())
    };
    let ((), took) = tokio::try_join!(create, running)?;
    Ok(took)
}

/// The same number of containers, as many at once.
fn bare(ctr: &Ctr) -> Result<Duration> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let work = || loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= PODS {
                return anyhow::Ok(());
            }
            ctr.start(&format!("many-{n}"))?;
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.map_err(|_| anyhow::anyhow!("a worker panicked"))?
        })
    })
    .context("the bare loop")?;
    let took = started.elapsed();
    (0..PODS).try_for_each(|n| ctr.remove(&format!("many-{n}")))?;
    Ok(took)
}
