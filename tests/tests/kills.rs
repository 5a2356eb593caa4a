//! The whole binary, through TLS, killed again and again under write load: what was acknowledged
//! is there with its resourceVersion, and a watch that resumes sees every event exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use peapod_tests::rounds::rounds;
use peapod_tests::{Cluster, wait};
use tokio::task::JoinSet;

/// Clients that write at once, each to an object of its own.
const WRITERS: usize = 8;
/// Between two attempts while nobody answers.
const PAUSE: Duration = Duration::from_millis(10);
const LABEL: (&str, &str) = ("of", "kills");

/// A count that stands in an object, with the resourceVersion that it was written at.
type Written = BTreeMap<(String, u64), u64>;

/// What writers and the test say to each other.
#[derive(Default)]
struct Load {
    acknowledged: AtomicUsize,
    enough: AtomicBool,
}

fn count(map: &ConfigMap) -> Result<u64> {
    let data = map.data.as_ref().and_then(|data| data.get("count"));
    Ok(data.context("no count")?.parse()?)
}

fn revision(map: &ConfigMap) -> Result<u64> {
    let version = map.resource_version().context("no resourceVersion")?;
    Ok(version.parse()?)
}

fn object(name: &str, count: u64, version: Option<String>) -> ConfigMap {
    let (key, value) = LABEL;
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            resource_version: version,
            ..Default::default()
        },
        data: Some(BTreeMap::from([("count".to_owned(), count.to_string())])),
        ..Default::default()
    }
}

/// Counts up in one object until it is enough; returns what was acknowledged.
async fn write(client: Client, name: String, load: Arc<Load>) -> Result<Written> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut acknowledged = Written::new();
    // What stands there; `None` when the outcome of the last write is not known.
    let mut standing: Option<ConfigMap> = None;
    while !load.enough.load(Ordering::Acquire) {
        let written = match &standing {
            Some(map) => {
                let next = object(&name, count(map)? + 1, map.resource_version());
                maps.replace(&name, &PostParams::default(), &next).await
            }
            None => match maps.get_opt(&name).await {
                Ok(Some(map)) => {
                    must_continue(&map, &acknowledged)?;
                    standing = Some(map);
                    continue;
                }
                Ok(None) => {
                    ensure!(acknowledged.is_empty(), "{name} is gone");
                    let first = object(&name, 0, None);
                    maps.create(&PostParams::default(), &first).await
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        match written {
            Ok(map) => {
                acknowledged.insert((name.clone(), count(&map)?), revision(&map)?);
                load.acknowledged.fetch_add(1, Ordering::AcqRel);
                standing = Some(map);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                bail!("{name} was not as it was acknowledged: {}", status.message)
            }
            // Nobody answered, or the answer broke off: it may have been written or not.
            Err(_) => standing = None,
        }
    }
    Ok(acknowledged)
}

/// What is read after a kill is the last that was acknowledged, or the one that was under way.
fn must_continue(map: &ConfigMap, acknowledged: &Written) -> Result<()> {
    let Some(((name, last), at)) = acknowledged.last_key_value() else {
        return Ok(());
    };
    let there = (count(map)?, revision(map)?);
    ensure!(
        there == (*last, *at) || (there.0 == last + 1 && there.1 > *at),
        "{name}: {last} was acknowledged at {at}, but {there:?} is there"
    );
    Ok(())
}

/// Follows every event after `from`, over all kills, until it has seen the revision `until`.
async fn follow(
    client: Client,
    from: u64,
    mut until: tokio::sync::watch::Receiver<u64>,
) -> Result<Written> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let params = WatchParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
    let (mut seen, mut last) = (Written::new(), from);
    loop {
        if let Ok(stream) = maps.watch(&params, &last.to_string()).await {
            let mut stream = std::pin::pin!(stream);
            loop {
                if last >= *until.borrow() {
                    return Ok(seen);
                }
                let event = tokio::select! {
                    event = stream.try_next() => event,
                    Ok(()) = until.changed() => continue,
                };
                match event {
                    Ok(Some(WatchEvent::Added(map) | WatchEvent::Modified(map))) => {
                        let at = revision(&map)?;
                        ensure!(at > last, "an event of revision {at} after that of {last}");
                        let before = seen.insert((map.name_any(), count(&map)?), at);
                        ensure!(before.is_none(), "{} was written twice", map.name_any());
                        last = at;
                    }
                    Ok(Some(WatchEvent::Bookmark(mark))) => {
                        last = mark.metadata.resource_version.parse()?;
                    }
                    Ok(Some(WatchEvent::Deleted(map))) => bail!("{} is gone", map.name_any()),
                    Ok(Some(WatchEvent::Error(status))) if status.code == 410 => {
                        bail!("the watch cannot resume from {last}: {}", status.message)
                    }
                    Ok(Some(WatchEvent::Error(_)) | None) | Err(_) => break,
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_watches_resume() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let client = runtime.block_on(cluster.client())?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let list = runtime.block_on(maps.list(&ListParams::default()))?;
    let start: u64 = list
        .metadata
        .resource_version
        .context("no version")?
        .parse()?;

    let load = Arc::new(Load::default());
    let (end, until) = tokio::sync::watch::channel(u64::MAX);
    let following = runtime.spawn(follow(client.clone(), start, until));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let written = write(client.clone(), format!("writer-{writer}"), load.clone());
        writers.spawn_on(written, runtime.handle());
    }

    for round in 0..rounds(3) {
        // From just started to well under way, and not always the same.
        let wanted = load.acknowledged.load(Ordering::Acquire) + 1 + round * 97 % 300;
        let mut ended = None;
        wait::until("more writes", || {
            ended = writers.try_join_next();
            Ok(ended.is_some() || load.acknowledged.load(Ordering::Acquire) >= wanted)
        })
        .with_context(|| format!("before kill {}; the log:\n{}", round + 1, cluster.log()))?;
        if let Some(writer) = ended {
            writer??;
            bail!("a writer has ended before it was told to");
        }
        cluster.crash()?;
        cluster
            .start()
            .with_context(|| format!("after kill number {}", round + 1))?;
    }
    load.enough.store(true, Ordering::Release);

    let mut acknowledged = Written::new();
    while let Some(written) = runtime.block_on(writers.join_next()) {
        acknowledged.append(&mut written??);
    }
    let (key, value) = LABEL;
    let labelled = ListParams::default().labels(&format!("{key}={value}"));
    let list = runtime.block_on(maps.list(&labelled))?;
    let newest = list
        .items
        .iter()
        .map(revision)
        .collect::<Result<Vec<_>>>()?;
    end.send(newest.into_iter().max().unwrap_or(start))?;
    let seen = runtime
        .block_on(async { tokio::time::timeout(wait::PATIENCE, following).await })
        .context("the watch has not seen the newest write")???;

    for (write, at) in &acknowledged {
        assert_eq!(
            seen.get(write),
            Some(at),
            "{write:?} as it was acknowledged"
        );
    }
    for map in &list.items {
        let name = map.name_any();
        let counts = 0..=count(map)?;
        let missing = counts.filter(|count| !seen.contains_key(&(name.clone(), *count)));
        assert_eq!(
            missing.collect::<Vec<_>>(),
            [0; 0],
            "of {name} in the watch"
        );
        assert_eq!(seen.get(&(name, count(map)?)), Some(&revision(map)?));
    }
    let total: usize = list.items.len();
    assert_eq!(total, WRITERS);
    println!("{} writes were acknowledged", acknowledged.len());
    Ok(())
}
