//! What the figures are compared with.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peapod_store::engine::{Engine, News};
use peapod_store::{Action, Compare, Draft, Op, Resource, SledConfig, SledEngine, Txn};
use serde_json::json;
use tokio::task::JoinSet;

use crate::pods::POD_BYTES;

/// What the embedded engine alone does with as many committers: writes per second.
pub async fn engine(writes: usize, committers: usize) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let engine = Arc::new(SledEngine::open(SledConfig::new(dir.path()))?);
    let loaded = engine.load().await?;
    let mut events = engine.events(loaded.revision)?;
    let mut answering = JoinSet::new();
    // The store's part: whoever committed is answered by the one who applies the events.
    answering.spawn(async move {
        while let Some(News::Changes(batch)) = events.recv().await {
            for delivery in batch {
                if let Some(committer) = delivery.committer {
                    let _ = committer.send(Ok(delivery.change));
                }
            }
        }
    });
    let pods = Resource::new("core", "pods")?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..committers {
        let (engine, next, pods) = (engine.clone(), next.clone(), pods.clone());
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= writes {
                    return anyhow::Ok(());
                }
                let op = Op {
                    key: pods.key("default", &format!("pod-{index}"))?,
                    compare: Compare::Absent,
                    action: Action::Put(Draft::plain(vec![b'x'; POD_BYTES])),
                };
                engine.commit(Txn { ops: vec![op] }).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let rate = writes as f64 / began.elapsed().as_secs_f64();
    engine.close().await;
    Ok(rate)
}

/// A private etcd, while it is held.
struct Etcd {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Debian's etcd does with as many clients, over its JSON gateway on loopback: writes per
/// second and its CPU time per write; `None` where it is not installed.
pub async fn etcd(writes: usize, clients: usize) -> anyhow::Result<Option<(f64, Duration)>> {
    let dir = tempfile::tempdir()?;
    let port = || {
        anyhow::Ok(
            std::net::TcpListener::bind("127.0.0.1:0")?
                .local_addr()?
                .port(),
        )
    };
    let url = format!("http://127.0.0.1:{}", port()?);
    let peer = format!("http://127.0.0.1:{}", port()?);
    let child = Command::new("etcd")
        .args(["--data-dir", &dir.path().display().to_string()])
        .args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        return Ok(None);
    };
    let etcd = Etcd { child, _dir: dir };
    let client = reqwest::Client::new();
    ready(&client, &url).await?;
    let before = cpu(etcd.child.id())?;
    let next = Arc::new(AtomicUsize::new(0));
    let value = STANDARD.encode(vec![b'x'; POD_BYTES]);
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..clients {
        let (client, next) = (client.clone(), next.clone());
        let (url, value) = (format!("{url}/v3/kv/put"), value.clone());
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= writes {
                    return anyhow::Ok(());
                }
                let key = STANDARD.encode(format!("/registry/pods/default/pod-{index}"));
                let body = json!({"key": key, "value": value}).to_string();
                let answer = client.post(&url).body(body).send().await?;
                answer.error_for_status()?.bytes().await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let rate = writes as f64 / began.elapsed().as_secs_f64();
    let spent = cpu(etcd.child.id())?.saturating_sub(before);
    Ok(Some((rate, spent / writes as u32)))
}

async fn ready(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let health = format!("{url}/health");
    loop {
        match client.get(&health).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            _ if began.elapsed() > Duration::from_secs(20) => {
                anyhow::bail!("etcd is not healthy after 20 s");
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The CPU time of another process, to the hundredth of a second.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().context("a malformed stat file")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// How long copying so many bytes takes.
pub fn memcpy(bytes: usize) -> Duration {
    let from = vec![1u8; bytes];
    // Not zeroes: their pages would be given only when they are written.
    let mut to = vec![2u8; bytes];
    let began = Instant::now();
    to.copy_from_slice(&from);
    let took = began.elapsed();
    // The copy must not be optimised away.
    assert_eq!(std::hint::black_box(&to).last(), Some(&1));
    took
}
