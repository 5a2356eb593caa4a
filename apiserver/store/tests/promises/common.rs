//! A describer of test values, and short words for what the tests do over and over.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use peapod_store::{
    Compare, Describe, Draft, Event, EventKind, IndexId, Interest, Key, Limits, MemoryEngine,
    OpenError, Recovery, Resource, Scope, SledConfig, SledEngine, Snapshot, Store, Txn, Watch,
};

/// The node that a test value names: `on=n1 rv=42` is found under `n1`.
pub const NODE: IndexId = IndexId(1);

/// Metadata of a test value: its node.
pub type Meta = Option<String>;

pub type TestStore = Store<Meta>;

pub struct Nodes;

impl Describe<Meta> for Nodes {
    fn describe(&self, _key: &Key, value: &Bytes) -> Meta {
        let text = std::str::from_utf8(value).ok()?;
        let node = text.strip_prefix("on=")?.split(' ').next()?;
        Some(node.to_owned())
    }

    fn indexes<'m>(&self, meta: &'m Meta) -> Vec<(IndexId, &'m str)> {
        meta.iter().map(|node| (NODE, node.as_str())).collect()
    }
}

pub async fn memory_store(limits: Limits) -> TestStore {
    Store::open(Arc::new(MemoryEngine::new()), Arc::new(Nodes), limits)
        .await
        .unwrap()
}

pub fn pods() -> Resource {
    Resource::new("core", "pods").unwrap()
}

/// The key of a pod, from `namespace/name`.
pub fn pod(path: &str) -> Key {
    let (namespace, name) = path.split_once('/').unwrap();
    pods().key(namespace, name).unwrap()
}

/// The value of a pod on `node`, which is to hold its revision.
pub fn on(node: &str) -> Draft {
    let text = format!("on={node} rv=");
    let at = text.len() as u32;
    Draft::new(text, at)
}

pub fn put(path: &str, node: &str) -> Txn {
    Txn::new().put(pod(path), Compare::Any, on(node))
}

pub fn delete(path: &str) -> Txn {
    Txn::new().delete(pod(path), Compare::Present)
}

/// `+a/x@1 on=n1 rv=1` for each entry: creation, or `~` for an update, `-` for a deletion.
pub fn show(event: &Event<Meta>) -> String {
    let sign = match (event.kind, &event.previous) {
        (EventKind::Delete, _) => '-',
        (EventKind::Put, None) => '+',
        (EventKind::Put, Some(_)) => '~',
    };
    let key = &event.entry.key;
    let value = String::from_utf8_lossy(&event.entry.value);
    format!(
        "{sign}{}/{}@{} {value}",
        key.namespace(),
        key.name(),
        event.revision
    )
}

/// The next `count` events.
pub async fn events(watch: &mut Watch<Meta>, count: usize) -> Vec<String> {
    let mut shown = Vec::new();
    for _ in 0..count {
        shown.push(show(&watch.next().await.unwrap()));
    }
    shown
}

/// All names of a snapshot.
pub fn names(snapshot: &Snapshot<Meta>) -> Vec<String> {
    let all = snapshot.range(Scope::All, None);
    all.map(|entry| format!("{}/{}", entry.key.namespace(), entry.key.name()))
        .collect()
}

pub fn all_pods() -> Interest {
    Interest::new(pods())
}

/// Opens the store in `dir` over sled.
pub async fn sled_store(dir: &Path) -> (TestStore, Option<Recovery>) {
    open_with(SledConfig::new(dir), Limits::default())
        .await
        .unwrap()
}

pub async fn open_with(
    config: SledConfig,
    limits: Limits,
) -> Result<(TestStore, Option<Recovery>), OpenError> {
    let engine = SledEngine::open(config)?;
    let recovery = engine.recovery().cloned();
    let store = Store::open(Arc::new(engine), Arc::new(Nodes), limits).await;
    Ok((store.unwrap(), recovery))
}

/// Every pod with its value: what must survive.
pub fn content(store: &TestStore) -> Vec<(String, String)> {
    let snapshot = store.snapshot(&pods());
    let shown = snapshot.range(Scope::All, None).map(|entry| {
        let value = String::from_utf8_lossy(&entry.value).into_owned();
        (entry.key.to_string(), value)
    });
    shown.collect()
}
