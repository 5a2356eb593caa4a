//! The node's daemons die in any order at any moment, again and again: containers run on, their logs
//! are whole, their statuses right. `ROUNDS` says how often; the seed is printed, and `SEED` has it again.

use std::time::Duration;

use anyhow::{Context, Result};
use peapod_tests::rounds::{rounds, seed};
use peapod_tests::{Cluster, process, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ready;

/// Count aloud for ever; a liveness probe that misfires would restart them.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ticker}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done']
    livenessProbe: {exec: {command: ['true']}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}
  - {name: beside, image: 'busybox:test', imagePullPolicy: Never, command: [sleep, '10000']}
";

#[derive(Clone, Copy, Debug)]
enum Victim {
    /// API server, node agent and the rest of the process.
    Peapod,
    Containerd,
    LogWriter,
    /// What runs the containers.
    Shim,
}

const VICTIMS: [Victim; 4] = [
    Victim::Peapod,
    Victim::Containerd,
    Victim::LogWriter,
    Victim::Shim,
];

fn kill(cluster: &Cluster, victim: Victim) -> Result<()> {
    match victim {
        Victim::Peapod => {
            cluster.crash()?;
            cluster.start().map(drop)
        }
        Victim::Containerd => {
            let path = cluster.data_dir().join("containerd/containerd.pid");
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            process::kill(&[text.trim().parse()?])
        }
        Victim::Shim => {
            let dir = cluster.data_dir().join("runtime/shim");
            process::kill(&process::with_argument(&dir.to_string_lossy())?)
        }
        Victim::LogWriter => {
            let containers = cluster.data_dir().join("runtime/containers");
            let mut pids = process::with_argument(&containers.to_string_lossy())?;
            let writer = |pid: &i32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("log-writer")
            };
            pids.retain(writer);
            process::kill(&pids)
        }
    }
}

fn ticks(cluster: &Cluster) -> Result<Vec<u64>> {
    let log = cluster.kubectl("logs ticker -c c")?.ok()?;
    log.lines().map(|line| Ok(line.parse()?)).collect()
}

#[test]
fn containers_outlive_the_nodes_daemons() -> Result<()> {
    outlive("peapod", rounds(3))
}

#[test]
fn so_they_do_with_containerds_shims() -> Result<()> {
    outlive("runc", rounds(1))
}

fn outlive(shim: &str, rounds: usize) -> Result<()> {
    let mut chance = StdRng::seed_from_u64(seed());
    let cluster = Cluster::prepare()?;
    let socket = cluster.data_dir().join("containerd/containerd.sock");
    let socket = socket.to_string_lossy();
    cluster.start_with(&["--containerd", &socket, "--runtime-shim", shim])?;
    cluster.load_busybox()?;
    cluster.apply(PODS)?;
    ready(&cluster, "ticker")?;
    wait::until("some ticks", || Ok(ticks(&cluster)?.len() > 3))?;
    let pid = process::of_pod("ticker")?;
    for round in 0..rounds {
        let seen = ticks(&cluster)?.len();
        let victims: Vec<Victim> = (0..chance.random_range(1..=3))
            .map(|_| VICTIMS[chance.random_range(0..VICTIMS.len())])
            .collect();
        eprintln!("round {round}: {victims:?}");
        for victim in victims {
            kill(&cluster, victim)?;
            std::thread::sleep(Duration::from_millis(chance.random_range(0..500)));
        }
        wait::until("exec to work again", || {
            Ok(cluster.kubectl("exec ticker -c c -- echo again")?.ok()? == "again\n")
        })?;
        wait::until("the log to go on", || Ok(ticks(&cluster)?.len() > seen + 3))?;
        let ticks = ticks(&cluster)?;
        let whole: Vec<u64> = (1..=ticks.len() as u64).collect();
        assert_eq!(ticks, whole, "no line of the log is lost or there twice");
        assert!(process::is_running(pid), "the container runs on");
        ready(&cluster, "ticker")?;
        let restarts = "{.status.containerStatuses[*].restartCount}";
        assert_eq!(cluster.field("pod/ticker", restarts)?, "0 0");
    }
    Ok(())
}

/// So many requests of this sort the API has served since it started.
fn requests(cluster: &Cluster, sort: &str) -> Result<u64> {
    let metrics = cluster.kubectl("get --raw /metrics")?.ok()?;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains(sort));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

#[test]
fn an_agent_that_comes_back_asks_for_nothing_that_it_has() -> Result<()> {
    const TOKENS: &str = "resource=\"serviceaccounts\",subresource=\"token\"";
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(PODS)?;
    ready(&cluster, "ticker")?;
    assert_eq!(requests(&cluster, TOKENS)?, 1);
    let token = || {
        let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let read = format!("exec ticker -c c -- cat {path}");
        cluster.kubectl(&read)?.ok()
    };
    let version = || cluster.field("pod/ticker", "{.metadata.resourceVersion}");
    // What is still to be written of its start has been.
    wait::until("its last status", || {
        let before = version()?;
        Ok(token().is_ok() && version()? == before)
    })?;
    let before = (token()?, version()?);
    cluster.crash()?;
    cluster.start()?;
    // When another pod runs, the agent has done what it does first of all.
    let next = PODS.replace("name: ticker", "name: next");
    cluster.apply(&next)?;
    ready(&cluster, "next")?;
    wait::until("exec to work again", || Ok(token()? == before.0))?;
    assert_eq!(version()?, before.1, "its status was written again");
    assert_eq!(requests(&cluster, TOKENS)?, 1, "only the new pod needs one");
    Ok(())
}
