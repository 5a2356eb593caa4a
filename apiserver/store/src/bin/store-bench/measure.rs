//! Commits per second and CPU per commit, of the bare engine and of the whole store; and how long a
//! store takes to open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use peapod_store::engine::{Engine, News};
use peapod_store::{Compare, Draft, Key, Limits, SledConfig, SledEngine, Store, Txn};

use crate::acknowledge::Plain;

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const VALUE_BYTES: usize = 2048;
/// Each client writes this many keys over and over.
const KEYS_PER_CLIENT: usize = 100;

/// How many entries the store has whose opening is measured.
const REOPENED: usize = 10_000;

/// Measures each number of clients for `time`, in fresh directories below `dir`.
pub async fn all(dir: &Path, time: Duration) -> Result<(), String> {
    println!("{VALUE_BYTES} byte values     commits/s      CPU us per commit");
    for clients in CLIENTS {
        engine(&dir.join(format!("engine-{clients}")), clients, time).await?;
    }
    for clients in CLIENTS {
        store(&dir.join(format!("store-{clients}")), clients, time).await?;
    }
    reopen(&dir.join("reopen")).await
}

/// How long it takes to open and verify a store of [`REOPENED`] entries.
async fn reopen(dir: &Path) -> Result<(), String> {
    let opened = async || {
        let engine = Arc::new(open(dir)?);
        let store = Store::open(engine, Arc::new(Plain), Limits::default()).await;
        store.map_err(|error| error.to_string())
    };
    let store = opened().await?;
    let mut working = tokio::task::JoinSet::new();
    for client in 0..REOPENED / KEYS_PER_CLIENT {
        let store = store.clone();
        working.spawn(async move {
            for number in 0..KEYS_PER_CLIENT {
                store
                    .commit(txn(client, number)?)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(ended) = working.join_next().await {
        ended.map_err(|panic| panic.to_string())??;
    }
    store.close().await;
    let (began, cpu) = (Instant::now(), cpu_time()?);
    let store = opened().await?;
    let (took, cpu) = (began.elapsed(), cpu_time()? - cpu);
    println!(
        "opening {REOPENED} entries: {} ms, {} ms of CPU",
        took.as_millis(),
        cpu.as_millis()
    );
    store.close().await;
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}

async fn engine(dir: &Path, clients: usize, time: Duration) -> Result<(), String> {
    let engine = Arc::new(open(dir)?);
    // The bare engine: its events are taken and dropped, each with the answer to its committer.
    let mut events = engine
        .events(Default::default())
        .map_err(|error| error.to_string())?;
    let drain = tokio::spawn(async move {
        while let Some(News::Changes(batch)) = events.recv().await {
            for delivery in batch {
                let _ = delivery.committer.map(|c| c.send(Ok(delivery.change)));
            }
        }
    });
    let measured = engine.clone();
    clock("engine", clients, time, move |txn| {
        let engine = measured.clone();
        async move {
            engine
                .commit(txn)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    })
    .await?;
    engine.close().await;
    drain.await.map_err(|panic| panic.to_string())?;
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}

async fn store(dir: &Path, clients: usize, time: Duration) -> Result<(), String> {
    let engine = Arc::new(open(dir)?);
    let store = Store::open(engine, Arc::new(Plain), Limits::default()).await;
    let store = store.map_err(|error| error.to_string())?;
    let measured = store.clone();
    clock("store", clients, time, move |txn| {
        let store = measured.clone();
        async move {
            store
                .commit(txn)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    })
    .await?;
    store.close().await;
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}

fn open(dir: &Path) -> Result<SledEngine, String> {
    SledEngine::open(SledConfig::new(dir)).map_err(|error| error.to_string())
}

/// Lets `clients` commit one after the other for `time`, and prints what it came to.
async fn clock<F>(
    what: &str,
    clients: usize,
    time: Duration,
    commit: impl Fn(Txn) -> F + Clone + Send + 'static,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), cpu_time()?);
    let mut working = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (done, count, commit) = (done.clone(), count.clone(), commit.clone());
        working.spawn(async move {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                commit(txn(client, round % KEYS_PER_CLIENT)?).await?;
                count.fetch_add(1, Ordering::Relaxed);
                round += 1;
            }
            Ok::<_, String>(())
        });
    }
    tokio::time::sleep(time).await;
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = working.join_next().await {
        ended.map_err(|panic| panic.to_string())??;
    }
    let commits = count.load(Ordering::Relaxed) as f64;
    let per_second = commits / began.elapsed().as_secs_f64();
    let cpu_us = (cpu_time()? - cpu).as_secs_f64() * 1e6 / commits.max(1.0);
    println!("{what:>8} {clients:>4} clients {per_second:>12.0} {cpu_us:>16.1}");
    Ok(())
}

fn txn(client: usize, number: usize) -> Result<Txn, String> {
    let key = Key::new(format!("/core/pods/bench/{client}-{number}"));
    let draft = Draft::new(vec![b'x'; VALUE_BYTES], VALUE_BYTES as u32 / 2);
    Ok(Txn::new().put(key.map_err(|error| error.to_string())?, Compare::Any, draft))
}

/// What this process has used of the processors so far.
fn cpu_time() -> Result<Duration, String> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(|error| error.to_string())?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}
