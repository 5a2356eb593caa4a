//! Creates, gets and lists of ten thousand pods.

use bytes::Bytes;
use hyper::Method;
use tokio::runtime::Runtime;

use crate::client::{JSON, PROTOBUF, Target};
use crate::etcd::Etcd;
use crate::load::{self, CLIENTS, CONNECTIONS};
use crate::measure::{cores, measure};
use crate::pods::{self, PODS, Size};
use crate::references;
use crate::server::Server;
use crate::table::{Figure, Table, each_ms, gigabytes, rate};

/// How many pods there are.
pub const COUNT: usize = 10_000;
const GETS: usize = 20_000;
const LISTS: usize = 10;

/// Creates the pods, and measures it.
pub fn create(server: &mut Server, runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    let clients = runtime.block_on(load::clients(server.target()))?;
    let took = measure(server, |_| {
        runtime.block_on(load::create_pods(clients, Size::Usual, 0, COUNT))
    })?;
    let sent = pods::pod("pod-000000", Size::Usual).len();
    let stored = runtime.block_on(stored(server.target()))?;
    let engine = runtime.block_on(references::engine(COUNT, CLIENTS, stored))?;
    let puts = COUNT / 2;
    let neighbour = runtime.block_on(async {
        let Some(etcd) = Etcd::start().await? else {
            return anyhow::Ok(Etcd::MISSING.to_owned());
        };
        let took = etcd.put(puts, CLIENTS, stored).await?;
        let reached = rate(puts, took.wall);
        Ok(format!(
            "etcd, no TLS: {reached:.0}/s, {} of CPU",
            each_ms(took.cpu, puts)
        ))
    })?;
    // What the server could do on the cores that the clients and others leave.
    let each = took.server.as_secs_f64() / COUNT as f64;
    let wall = took.wall.as_secs_f64();
    let left = cores() as f64 - took.foreign - took.client.as_secs_f64() / wall;
    table.add(Figure {
        name: format!("create a pod ({sent} B sent, {stored} B stored), TLS, durable"),
        must: "0.2 ms of CPU",
        seen: format!(
            "{} of CPU, {:.0}/s",
            each_ms(took.server, COUNT),
            rate(COUNT, took.wall)
        ),
        neighbour,
        foreign: took.foreign,
        beside: format!(
            "{CLIENTS} clients, {CONNECTIONS} connections, {} cores; what is left of them allows \
             {:.0}/s; the clients took {}; the engine alone commits {engine:.0}/s",
            cores(),
            left / each,
            each_ms(took.client, COUNT),
        ),
    });
    Ok(())
}

/// The size of a pod as it is stored, in bytes.
async fn stored(target: &Target) -> anyhow::Result<usize> {
    let mut connection = target.connect().await?;
    connection.read(&format!("{PODS}/pod-000000"), JSON).await
}

/// Measures gets of single pods.
pub fn get(server: &mut Server, runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    let clients = runtime.block_on(load::clients(server.target()))?;
    let stored = runtime.block_on(stored(server.target()))?;
    let took = measure(server, |_| {
        runtime.block_on(load::requests(clients, GETS, |index| {
            let path = format!("{PODS}/pod-{:06}", index * 7919 % COUNT);
            (Method::GET, path, Bytes::new())
        }))
    })?;
    let neighbour = runtime.block_on(async {
        let Some(etcd) = Etcd::start().await? else {
            return anyhow::Ok(Etcd::MISSING.to_owned());
        };
        etcd.put(100, CLIENTS, stored).await?;
        let took = etcd.get(GETS, CLIENTS, 100).await?;
        let reached = rate(GETS, took.wall);
        Ok(format!(
            "etcd, no TLS: {reached:.0}/s, {} of CPU",
            each_ms(took.cpu, GETS)
        ))
    })?;
    table.add(Figure {
        name: format!("get a pod ({stored} B), TLS, HTTP/2"),
        must: "0.08 ms of CPU",
        seen: format!(
            "{} of CPU, {:.0}/s",
            each_ms(took.server, GETS),
            rate(GETS, took.wall)
        ),
        neighbour,
        foreign: took.foreign,
        beside: format!("the clients took {}", each_ms(took.client, GETS)),
    });
    Ok(())
}

/// Measures lists of all pods, in both encodings.
pub fn list(server: &mut Server, runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    for (name, accept) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
        let mut connection = runtime.block_on(server.target().connect())?;
        let mut bytes = 0;
        let first = measure(server, |_| {
            bytes = runtime.block_on(connection.read(PODS, accept))?;
            Ok(())
        })?;
        let took = measure(server, |_| {
            runtime.block_on(async {
                for _ in 0..LISTS {
                    connection.read(PODS, accept).await?;
                }
                Ok(())
            })
        })?;
        let memcpy = references::memcpy(bytes);
        table.add(Figure {
            name: format!("list of {COUNT} pods, {name} ({} MB)", bytes / 1_000_000),
            must: "0.06 s of CPU, 1 GB/s",
            seen: format!(
                "{:.3} s of CPU, {:.2} GB/s",
                took.server.as_secs_f64() / LISTS as f64,
                gigabytes(bytes * LISTS, took.server),
            ),
            neighbour: format!("memcpy {}", each_ms(memcpy, 1)),
            foreign: took.foreign,
            beside: format!(
                "the first one {:.3} s of CPU; {} until the client has it",
                first.server.as_secs_f64(),
                each_ms(took.wall, LISTS),
            ),
        });
    }
    Ok(())
}
