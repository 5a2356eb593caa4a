//! The figures, in the order in which they build on each other.

use bytes::Bytes;
use hyper::Method;
use tokio::runtime::Runtime;

use crate::measure::cores;
use crate::pods::Size;
use crate::requests::COUNT;
use crate::server::Server;
use crate::table::Table;
use crate::{load, memory, requests, schedule, watches};

/// All of them.
const NAMES: [&str; 6] = ["create", "get", "list", "schedule", "watch", "memory"];

/// Measures the figures that are named, or all.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    // cargo itself adds an argument.
    let names: Vec<_> = names.iter().filter(|n| !n.starts_with("--")).collect();
    if let Some(name) = names.iter().find(|n| !NAMES.contains(&n.as_str())) {
        anyhow::bail!("there is no figure {name}; there are {}", NAMES.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| *n == name);
    let runtime = Runtime::new()?;
    let mut table = Table::default();
    println!("on {} cores", cores());
    if ["create", "get", "list", "schedule"]
        .into_iter()
        .any(wanted)
    {
        of_many_pods(&wanted, &runtime, &mut table)?;
    }
    if wanted("watch") {
        watches::run(&runtime, &mut table)?;
    }
    if wanted("memory") {
        memory::run(&runtime, &mut table)?;
    }
    print!("\n{}", table.render());
    Ok(())
}

fn of_many_pods(
    wanted: &impl Fn(&str) -> bool,
    runtime: &Runtime,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut server = start(runtime)?;
    if wanted("create") {
        requests::create(&mut server, runtime, table)?;
    } else {
        runtime.block_on(async {
            let clients = load::clients(server.target()).await?;
            load::create_pods(clients, Size::Usual, 0, COUNT).await
        })?;
    }
    if wanted("get") {
        requests::get(&mut server, runtime, table)?;
    }
    if wanted("list") {
        requests::list(&mut server, runtime, table)?;
    }
    if wanted("schedule") {
        schedule::run(&mut server, runtime, table)?;
    }
    Ok(())
}

/// A server with what pods need: their service account, which no controller is there to make.
pub fn start(runtime: &Runtime) -> anyhow::Result<Server> {
    let server = Server::start()?;
    runtime.block_on(async {
        let mut connection = server.target().connect().await?;
        let account =
            r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        let path = "/api/v1/namespaces/default/serviceaccounts";
        connection
            .ask(Method::POST, path, Bytes::from_static(account.as_bytes()))
            .await
    })?;
    Ok(server)
}
