//! What the figures are compared with, beside the neighbour.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peapod_store::engine::{Engine, News};
use peapod_store::{Action, Compare, Draft, Op, Resource, SledConfig, SledEngine, Txn};
use tokio::task::JoinSet;

/// What the embedded engine alone does with as many committers and values of a size: writes per
/// second.
pub async fn engine(writes: usize, committers: usize, size: usize) -> anyhow::Result<f64> {
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
                    action: Action::Put(Draft::plain(vec![b'x'; size])),
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
