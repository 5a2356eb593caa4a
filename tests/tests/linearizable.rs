//! What concurrent clients saw, through the whole binary and TLS, while servers were killed and started
//! again, is linearizable: checked by `peapod_tests::history`. `ROUNDS` kills; few unless told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt};
use peapod_tests::history::{Call, Operation, Outcome, Recorder, check};
use peapod_tests::rounds::rounds;
use peapod_tests::{Etcd, Server};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

const CLIENTS: usize = 6;
const KEYS: usize = 4;
/// How long a client waits for an answer. Then nobody knows.
const PATIENCE: Duration = Duration::from_secs(5);
/// A bound that only a fault reaches.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two attempts while nobody answers.
const PAUSE: Duration = Duration::from_millis(20);
/// How many operations are answered before and between kills.
const BETWEEN: usize = 150;

/// What clients and the test say to each other.
#[derive(Default)]
struct Load {
    recorder: Recorder,
    values: AtomicU64,
    answered: AtomicUsize,
    enough: AtomicBool,
}

/// One client: to one server after another, as they fail.
struct Worker {
    maps: Vec<Api<ConfigMap>>,
    at: usize,
    load: Arc<Load>,
    rng: StdRng,
    /// What was last read or written, of each key.
    known: Vec<Option<ConfigMap>>,
}

fn value_of(map: &ConfigMap) -> Option<u64> {
    map.data.as_ref()?.get("value")?.parse().ok()
}

fn version_of(map: &ConfigMap) -> Option<u64> {
    map.resource_version()?.parse().ok()
}

fn object(name: &str, value: u64, version: Option<String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("of".to_owned(), "history".to_owned())].into()),
            resource_version: version,
            ..Default::default()
        },
        data: Some([("value".to_owned(), value.to_string())].into()),
        ..Default::default()
    }
}

/// What is known of a request after its answer, or without one.
type Known<T> = (Option<T>, Outcome, Option<u64>);

/// What an answer means.
fn judge<T>(
    answer: Result<kube::Result<T>, tokio::time::error::Elapsed>,
    done: impl FnOnce(&T) -> (Outcome, Option<u64>),
) -> Known<T> {
    match answer {
        Ok(Ok(object)) => {
            let (outcome, version) = done(&object);
            (Some(object), outcome, version)
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => (None, Outcome::Other, None),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => (None, Outcome::Absent, None),
        Ok(Err(error)) if is_unsent(&error) => (None, Outcome::Unsent, None),
        // No answer, or one that does not say what happened.
        _ => (None, Outcome::Unknown, None),
    }
}

/// Whether there was no connection to send a request over.
fn is_unsent(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
        if client.is_some_and(|error| error.is_connect()) {
            return true;
        }
        cause = error.source();
    }
    false
}

// === impl Worker ===

impl Worker {
    async fn run(mut self) {
        while !self.load.enough.load(Ordering::Acquire) {
            let key = self.rng.random_range(0..KEYS);
            let outcome = self.step(key).await;
            if matches!(outcome, Outcome::Unknown | Outcome::Unsent) {
                self.at += 1;
                tokio::time::sleep(PAUSE).await;
            } else {
                self.load.answered.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    async fn step(&mut self, key: usize) -> Outcome {
        let name = format!("k{key}");
        let maps = self.maps[self.at % self.maps.len()].clone();
        let load = self.load.clone();
        let fresh = load.values.fetch_add(1, Ordering::Relaxed);
        let params = PostParams::default();
        let (outcome, known) = match (self.known[key].take(), self.rng.random_range(0..10)) {
            (Some(map), 0..6) => {
                let from = value_of(&map).unwrap_or_default();
                let call = Call::Swap { from, to: fresh };
                let next = object(&name, fresh, map.resource_version());
                let work = async {
                    let asked = maps.replace(&name, &params, &next);
                    let answer = tokio::time::timeout(PATIENCE, asked).await;
                    let known = judge(answer, |map| (Outcome::Done, version_of(map)));
                    (known.clone(), known.1, known.2)
                };
                let (map, outcome, _) = load.recorder.record(&name, call, work).await;
                (outcome, map)
            }
            (Some(map), 6) => {
                let call = Call::Delete(value_of(&map).unwrap_or_default());
                let conditions = Preconditions {
                    resource_version: map.resource_version(),
                    uid: None,
                };
                let params = DeleteParams::default().preconditions(conditions);
                let work = async {
                    let asked = maps.delete(&name, &params);
                    let answer = tokio::time::timeout(PATIENCE, asked).await;
                    let (_, outcome, _) = judge(answer, |_| (Outcome::Done, None));
                    (outcome, outcome, None)
                };
                (load.recorder.record(&name, call, work).await, None)
            }
            (None, 0..3) => {
                let call = Call::Create(fresh);
                let next = object(&name, fresh, None);
                let work = async {
                    let answer = tokio::time::timeout(PATIENCE, maps.create(&params, &next)).await;
                    let known = judge(answer, |map| (Outcome::Done, version_of(map)));
                    (known.clone(), known.1, known.2)
                };
                let (map, outcome, _) = load.recorder.record(&name, call, work).await;
                (outcome, map)
            }
            _ => {
                let work = async {
                    let answer = tokio::time::timeout(PATIENCE, maps.get(&name)).await;
                    let read = |map: &ConfigMap| match value_of(map) {
                        Some(value) => (Outcome::Read(value), version_of(map)),
                        None => (Outcome::Unknown, None),
                    };
                    let known = judge(answer, read);
                    (known.clone(), known.1, known.2)
                };
                let (map, outcome, _) = load.recorder.record(&name, Call::Get, work).await;
                (outcome, map)
            }
        };
        self.known[key] = known;
        outcome
    }
}

fn api(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

/// Starts clients over servers, each at another one first.
fn clients(clients: &[Client], load: &Arc<Load>, seed: u64) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for at in 0..CLIENTS {
        let worker = Worker {
            maps: clients.iter().map(api).collect(),
            at,
            load: load.clone(),
            rng: StdRng::seed_from_u64(seed.wrapping_add(at as u64)),
            known: vec![None; KEYS],
        };
        workers.spawn(worker.run());
    }
    workers
}

/// Waits until so many more operations were answered.
async fn more(load: &Load, count: usize) -> Result<()> {
    let until = load.answered.load(Ordering::Acquire) + count;
    let waiting = async {
        while load.answered.load(Ordering::Acquire) < until {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting)
        .await
        .context("clients are not answered")
}

/// Ends the clients, reads every key once more, and checks everything.
async fn finish(load: &Load, mut workers: JoinSet<()>, last: &Client) -> Result<Vec<Operation>> {
    load.enough.store(true, Ordering::Release);
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    let maps = api(last);
    for key in 0..KEYS {
        let name = format!("k{key}");
        let work = async {
            let found = maps.get_opt(&name).await;
            let (outcome, version) = match &found {
                Ok(Some(map)) => (
                    value_of(map).map_or(Outcome::Unknown, Outcome::Read),
                    version_of(map),
                ),
                Ok(None) => (Outcome::Absent, None),
                Err(_) => (Outcome::Unknown, None),
            };
            (found.map(drop), outcome, version)
        };
        load.recorder.record(&name, Call::Get, work).await?;
    }
    let history = load.recorder.take();
    let unknown = history
        .iter()
        .filter(|one| one.outcome == Outcome::Unknown)
        .count();
    println!(
        "{} operations, {unknown} of them with an unknown outcome",
        history.len()
    );
    check(&history).map_err(anyhow::Error::msg)?;
    Ok(history)
}

fn seed() -> u64 {
    let seed =
        std::env::var("SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap_or(0));
    println!("SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_killed_again_and_again() -> Result<()> {
    let seed = seed();
    let mut server = Server::start(&["--without", "controllers,scheduler"])?;
    let client = server.client().await?;
    let load = Arc::new(Load::default());
    let workers = clients(std::slice::from_ref(&client), &load, seed);
    for round in 0..rounds(2) {
        more(&load, BETWEEN + round * 37 % 200).await?;
        server.kill()?;
        server.run()?;
        server.ready()?;
    }
    more(&load, BETWEEN).await?;
    finish(&load, workers, &client).await.map(drop)
}

/// Follows all objects from a revision on, over whichever server answers, until told to stop; every
/// version that was put, in order.
async fn follow(maps: Vec<Api<ConfigMap>>, from: u64, until: Arc<AtomicU64>) -> Result<Vec<u64>> {
    let (mut at, mut last, mut seen) = (0, from, Vec::new());
    let done = |last: u64| last >= until.load(Ordering::Acquire);
    while !done(last) {
        let params = WatchParams::default().labels("of=history");
        let version = last.to_string();
        let opened = maps[at % maps.len()].watch(&params, &version);
        at += 1;
        let Ok(Ok(events)) = tokio::time::timeout(PATIENCE, opened).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        while !done(last) {
            let event = match tokio::time::timeout(PATIENCE, events.try_next()).await {
                Ok(Ok(Some(event))) => event,
                // Broken, or silent: the same, elsewhere.
                _ => break,
            };
            let (map, put) = match event {
                WatchEvent::Added(map) | WatchEvent::Modified(map) => (map, true),
                WatchEvent::Deleted(map) => (map, false),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => anyhow::bail!("the watch from {last}: {status:?}"),
            };
            let version = version_of(&map).context("no resourceVersion")?;
            ensure!(version > last, "{version} after {last}");
            last = version;
            if put {
                seen.push(version);
            }
        }
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_over_one_etcd_killed_in_turn() -> Result<()> {
    let seed = seed();
    let etcd = Etcd::start(1)?;
    let mut flags = etcd.flags();
    let mut servers = vec![Server::start(&flags)?];
    let pki = servers[0].data_dir().join("pki").display().to_string();
    flags.extend(["--pki-dir".to_owned(), pki]);
    for _ in 0..2 {
        servers.push(Server::start(&flags)?);
    }
    let mut all = Vec::new();
    for server in &servers {
        all.push(server.client().await?);
    }
    let begin = api(&all[0]).list(&ListParams::default()).await?;
    let begin = begin
        .metadata
        .resource_version
        .context("no resourceVersion")?;
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let maps = all.iter().map(api).collect();
    let watching = tokio::spawn(follow(maps, begin.parse()?, until.clone()));
    let load = Arc::new(Load::default());
    let workers = clients(&all, &load, seed);
    for round in 0..rounds(2) {
        more(&load, BETWEEN).await?;
        // The first leads: its controllers are taken over while clients go on at the others.
        let at = round % servers.len();
        servers[at].kill()?;
        more(&load, BETWEEN).await?;
        servers[at].run()?;
        servers[at].ready()?;
    }
    more(&load, BETWEEN).await?;
    let history = finish(&load, workers, &all[1]).await?;
    let mark = api(&all[2])
        .create(&PostParams::default(), &object("mark", u64::MAX, None))
        .await?;
    let mark = version_of(&mark).context("no resourceVersion")?;
    until.store(mark, Ordering::Release);
    let seen = tokio::time::timeout(LIMIT, watching).await???;
    // Every write that was acknowledged was seen, once and in order.
    let is_write = |one: &&Operation| one.call != Call::Get && one.outcome == Outcome::Done;
    for version in history
        .iter()
        .filter(is_write)
        .filter_map(|one| one.version)
    {
        ensure!(
            seen.binary_search(&version).is_ok(),
            "{version} was not seen"
        );
    }
    Ok(())
}
