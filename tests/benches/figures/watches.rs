//! What it costs to tell many of the same events.
//!
//! *Pending*, a watch begins at an older revision, and all events since are told at once. *Singly*,
//! an event is written when everybody has had the one before, so that each delivery is one wake-up,
//! one record and one write to a socket: what most of the deliveries of a quiet cluster are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::{Connection, JSON, Target};
use crate::etcd::Etcd;
use crate::load;
use crate::measure::{Took, measure};
use crate::pods::{self, PODS, Size};
use crate::server::Server;
use crate::table::{Figure, Table, each_ms, rate};

/// Watchers, events that are pending when they begin, and events that come singly.
struct Round {
    watchers: usize,
    pending: usize,
    singly: usize,
}

const ROUNDS: [Round; 2] = [
    Round {
        watchers: 100,
        pending: 2_000,
        singly: 200,
    },
    Round {
        watchers: 5_000,
        pending: 100,
        singly: 10,
    },
];

/// Measures on a server of its own.
pub fn run(runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    for round in &ROUNDS {
        let mut server = crate::figures::start(runtime)?;
        measure_round(&mut server, runtime, round, table)?;
    }
    Ok(())
}

fn measure_round(
    server: &mut Server,
    runtime: &Runtime,
    round: &Round,
    table: &mut Table,
) -> anyhow::Result<()> {
    let target = server.target().clone();
    let path = runtime.block_on(path_from_now(&target))?;
    let clients = runtime.block_on(load::clients(&target))?;
    runtime.block_on(load::create_pods(clients, Size::Small, 0, round.pending))?;
    let size = runtime.block_on(async {
        let mut connection = target.connect().await?;
        connection.read(&format!("{PODS}/pod-000000"), JSON).await
    })?;
    let watchers = runtime.block_on(connect(&target, round.watchers))?;
    let told = Arc::new(Told::default());
    let mut reading = JoinSet::new();
    let pending = measure(server, |_| {
        runtime.block_on(async {
            let (watching, all) = (
                begin(watchers, &path, &told, &mut reading),
                round.watchers * round.pending,
            );
            watching.await?;
            told.reach(all, &mut reading).await
        })
    })?;
    let neighbour = runtime.block_on(neighbour(round, size))?;
    add(
        table,
        round,
        "pending",
        "0.003 ms of CPU",
        size,
        round.pending,
        pending,
        neighbour,
    );

    let mut writer = runtime.block_on(target.connect())?;
    let mut number = 100_000;
    let mut write = |told: Option<&Told>, reading: &mut JoinSet<anyhow::Result<()>>| {
        runtime.block_on(async {
            for _ in 0..round.singly {
                let body = pods::pod(&format!("pod-{number}"), Size::Small);
                number += 1;
                writer.ask(Method::POST, PODS, body).await?;
                if let Some(told) = told {
                    let all = round.watchers * (round.pending + number - 100_000);
                    told.reach(all, reading).await?;
                }
            }
            anyhow::Ok(())
        })
    };
    let watched = measure(server, |_| write(Some(&told), &mut reading))?;
    runtime.block_on(reading.shutdown());
    let unwatched = measure(server, |_| write(None, &mut reading))?;
    let singly = Took {
        server: watched.server.saturating_sub(unwatched.server),
        ..watched
    };
    add(
        table,
        round,
        "singly",
        "0.01 ms of CPU",
        size,
        round.singly,
        singly,
        String::new(),
    );
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the columns of a line")]
fn add(
    table: &mut Table,
    round: &Round,
    how: &str,
    must: &'static str,
    size: usize,
    events: usize,
    took: Took,
    neighbour: String,
) {
    let deliveries = round.watchers * events;
    table.add(Figure {
        name: format!("watch: {} watchers, {how}, {size} B, TLS", round.watchers),
        must,
        seen: format!(
            "{} of CPU a delivery, {:.0}/s",
            each_ms(took.server, deliveries),
            rate(deliveries, took.wall)
        ),
        neighbour,
        foreign: took.foreign,
        beside: format!(
            "{events} events; the clients took {}",
            each_ms(took.client, deliveries)
        ),
    });
}

/// The path of a watch that begins now.
async fn path_from_now(target: &Target) -> anyhow::Result<String> {
    let mut connection = target.connect().await?;
    let path = format!("{PODS}?limit=1");
    let list = connection.ask(Method::GET, &path, Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list.pointer("/metadata/resourceVersion");
    let version = version
        .and_then(|v| v.as_str())
        .context("a list without a version")?;
    Ok(format!("{PODS}?watch=true&resourceVersion={version}"))
}

/// Watchers, each on a connection of its own: as many programs.
async fn connect(target: &Target, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = target.connect().await?;
        connection.read("/version", JSON).await?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Has all of them watch; what they read is counted.
async fn begin(
    watchers: Vec<Connection>,
    path: &str,
    told: &Arc<Told>,
    reading: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    for watcher in watchers {
        let (path, told) = (path.to_owned(), told.clone());
        reading.spawn(async move {
            let mut stream = watcher.stream(&path).await?;
            loop {
                told.add(stream.read().await?.0);
            }
        });
    }
    Ok(())
}

/// How many events all watchers together have had.
#[derive(Default)]
struct Told {
    count: AtomicUsize,
    wanted: AtomicUsize,
    reached: Notify,
}

impl Told {
    fn add(&self, events: usize) {
        let count = self.count.fetch_add(events, Ordering::AcqRel) + events;
        if count >= self.wanted.load(Ordering::Acquire) {
            self.reached.notify_one();
        }
    }

    /// Waits until they have had so many; fails when one of them ends.
    async fn reach(
        &self,
        wanted: usize,
        reading: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        self.wanted.store(wanted, Ordering::Release);
        while self.count.load(Ordering::Acquire) < wanted {
            tokio::select! {
                () = self.reached.notified() => {}
                Some(ended) = reading.join_next() => ended??,
            }
        }
        Ok(())
    }
}

async fn neighbour(round: &Round, size: usize) -> anyhow::Result<String> {
    let Some(etcd) = Etcd::start().await? else {
        return Ok(Etcd::MISSING.to_owned());
    };
    let took = etcd.watch(round.pending, round.watchers, size).await?;
    let deliveries = round.pending * round.watchers;
    Ok(format!(
        "etcd, no TLS: {:.0}/s, {} of CPU",
        rate(deliveries, took.wall),
        each_ms(took.cpu, deliveries)
    ))
}
