//! A writer to be killed: every client overwrites and deletes keys of its own, and says so once it
//! is acknowledged.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use peapod_store::{
    Compare, Describe, Draft, IndexId, Key, Limits, SledConfig, SledEngine, Store, Txn,
};

/// Reads nothing out of values.
pub struct Plain;

impl Describe<()> for Plain {
    fn describe(&self, _key: &Key, _value: &Bytes) {}

    fn indexes<'m>(&self, _meta: &'m ()) -> Vec<(IndexId, &'m str)> {
        Vec::new()
    }
}

/// Writes with `clients` clients until it is killed.
pub async fn run(dir: &Path, clients: usize) -> Result<(), String> {
    let engine = SledEngine::open(SledConfig::new(dir)).map_err(|error| error.to_string())?;
    if let Some(recovery) = engine.recovery() {
        return Err(format!("unexpected recovery: {recovery}"));
    }
    let store = Store::open(Arc::new(engine), Arc::new(Plain), Limits::default()).await;
    let store = store.map_err(|error| error.to_string())?;
    let mut working = tokio::task::JoinSet::new();
    for client in 0..clients {
        working.spawn(write(store.clone(), client));
    }
    while let Some(ended) = working.join_next().await {
        ended.map_err(|panic| panic.to_string())??;
    }
    Ok(())
}

/// Count up, each number a write of the client's own key and of a claim that the number before
/// held: so that each transaction puts and deletes.
async fn write(store: Store<()>, client: usize) -> Result<(), String> {
    let key = Key::new(format!("/core/pods/crash/{client}")).map_err(|error| error.to_string())?;
    let written = store.get(&key).map(|entry| count_of(&entry.value));
    let mut count = written.transpose()?.unwrap_or(0);
    loop {
        count += 1;
        let text = format!("{count} {} rv=", "x".repeat(client * 300 % 12_000));
        let place = text.len() as u32;
        let claim = |count| Key::new(format!("/claims/count/{client}-{count}"));
        let (claimed, released) = (claim(count), claim(count - 1));
        let txn = Txn::new()
            .put(key.clone(), Compare::Any, Draft::new(text, place))
            .put(
                claimed.map_err(|e| e.to_string())?,
                Compare::Absent,
                Draft::plain("held"),
            )
            .delete(released.map_err(|e| e.to_string())?, Compare::Any);
        let committed = store.commit(txn).await.map_err(|error| error.to_string())?;
        let line = format!("{client} {count} {}\n", committed.revision());
        // A reader that has gone away ends the writer.
        std::io::stdout()
            .write_all(line.as_bytes())
            .map_err(|error| error.to_string())?;
    }
}

fn count_of(value: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value);
    let count = text.split(' ').next().and_then(|count| count.parse().ok());
    count.ok_or_else(|| format!("a value without its count: {text:.40}"))
}
