//! What the scheduler takes for pods that are there already.

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use tokio::runtime::Runtime;

use crate::load;
use crate::measure::measure;
use crate::pods;
use crate::requests::COUNT;
use crate::server::Server;
use crate::table::{Figure, Table, each_ms, rate};

const NODES: usize = 1_000;

/// Makes nodes, and lets the scheduler bind every pod.
pub fn run(server: &mut Server, runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    runtime.block_on(async {
        let clients = load::clients(server.target()).await?;
        let node = |index| (Method::POST, "/api/v1/nodes".to_owned(), pods::node(index));
        load::requests(clients, NODES, node).await?;
        let mut connection = server.target().connect().await?;
        let node = connection.ask(Method::GET, "/api/v1/nodes/hollow-0", Bytes::new());
        let node: serde_json::Value = serde_json::from_slice(&node.await?)?;
        let capacity = node.pointer("/status/allocatable/pods");
        capacity.context("the API server dropped the status of a created node")?;
        anyhow::Ok(())
    })?;
    let took = measure(server, |server| server.schedule(COUNT).map(drop))?;
    table.add(Figure {
        name: format!("schedule {COUNT} pods on {NODES} hollow nodes, writes included"),
        must: "0.5 ms of CPU per pod",
        seen: format!(
            "{} of CPU, {:.0} pods/s",
            each_ms(took.server, COUNT),
            rate(COUNT, took.wall)
        ),
        neighbour: String::new(),
        foreign: took.foreign,
        beside: format!("server RSS {} MB", server.resident()? / 1_000_000),
    });
    Ok(())
}
