//! The figures, in the order in which they build on each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::client::Target;
use crate::pods::{self, PODS};
use crate::server::Server;
use crate::table::{Figure, each_ms, print, rate};
use crate::{cpu, references};

const CLIENTS: usize = 64;
const PODS_CREATED: usize = 10_000;
const GETS: usize = 20_000;
const LISTS: usize = 10;
const WATCHERS: usize = 100;
const EVENTS: usize = 1_000;
const NODES: usize = 1_000;

/// What a measurement took.
struct Took {
    wall: Duration,
    /// Of the server's process.
    server: Duration,
    /// Of this one, the client's.
    client: Duration,
}

/// Measures the figures that are named, or all.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    // cargo itself adds an argument.
    let names: Vec<_> = names.iter().filter(|n| !n.starts_with("--")).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| *n == name);
    let mut server = start(&runtime)?;
    println!("{CLIENTS} clients, {} cores", cores());
    if wanted("create") {
        create(&mut server, &runtime)?;
    } else {
        fill(&server, &runtime)?;
    }
    if wanted("get") {
        get(&mut server, &runtime)?;
    }
    if wanted("list") {
        list(&mut server, &runtime)?;
    }
    if wanted("schedule") {
        schedule(&mut server, &runtime)?;
    }
    if wanted("watch") {
        watch(&runtime)?;
    }
    Ok(())
}

/// A server with what pods need: their service account, which no controller is there to make.
fn start(runtime: &Runtime) -> anyhow::Result<Server> {
    let server = Server::start()?;
    let target = server.target().clone();
    runtime.block_on(async {
        let mut connection = target.connect().await?;
        let account =
            r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        let path = "/api/v1/namespaces/default/serviceaccounts";
        connection
            .ask(Method::POST, path, Bytes::from_static(account.as_bytes()))
            .await
    })?;
    Ok(server)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` and takes the times.
fn measure(server: &mut Server, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Took> {
    let (before, own) = (server.cpu()?, cpu::of_this_process()?);
    let began = Instant::now();
    work()?;
    let wall = began.elapsed();
    Ok(Took {
        wall,
        server: server.cpu()?.saturating_sub(before),
        client: cpu::of_this_process()?.saturating_sub(own),
    })
}

/// Makes `count` requests by [`CLIENTS`] clients, each over a connection of its own.
async fn requests(
    target: Target,
    count: usize,
    request: impl Fn(usize) -> (Method, String, Bytes) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let request = Arc::new(request);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.min(count) {
        let (target, next, request) = (target.clone(), next.clone(), request.clone());
        clients.spawn(async move {
            let mut connection = target.connect().await?;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(());
                }
                let (method, path, body) = request(index);
                connection.ask(method, &path, body).await?;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

async fn create_pods(target: Target, from: usize, count: usize) -> anyhow::Result<()> {
    requests(target, count, move |index| {
        let body = pods::pod(&format!("pod-{:06}", from + index));
        (Method::POST, PODS.to_owned(), body)
    })
    .await
}

fn fill(server: &Server, runtime: &Runtime) -> anyhow::Result<()> {
    let target = server.target().clone();
    runtime.block_on(create_pods(target, 0, PODS_CREATED))
}

fn create(server: &mut Server, runtime: &Runtime) -> anyhow::Result<()> {
    let target = server.target().clone();
    let took = measure(server, || {
        runtime.block_on(create_pods(target, 0, PODS_CREATED))
    })?;
    let engine = runtime.block_on(references::engine(PODS_CREATED, CLIENTS))?;
    let etcd = runtime.block_on(references::etcd(PODS_CREATED / 4, CLIENTS))?;
    let etcd = match etcd {
        Some((rate, cpu)) => format!(
            "etcd (JSON gateway, without an API server) {rate:.0}/s, {} of CPU",
            each_ms(cpu, 1)
        ),
        None => "etcd is not installed".to_owned(),
    };
    let reached = rate(PODS_CREATED, took.wall);
    // What the server could do on the cores that the client leaves.
    let left = took.wall.as_secs_f64() * cores() as f64 - took.client.as_secs_f64();
    let allowed = left / (took.server.as_secs_f64() / PODS_CREATED as f64);
    let allowed = allowed / took.wall.as_secs_f64();
    print(&Figure {
        name: format!("create a 2 KB pod, {CLIENTS} clients, TLS, durable"),
        goal: "0.5 ms of CPU; the lower of 4/5 of what the cores allow and 1/2 of the engine",
        reached: format!(
            "{} of CPU, {reached:.0}/s",
            each_ms(took.server, PODS_CREATED)
        ),
        beside: format!(
            "the cores left by the client allow {allowed:.0}/s; the client took {}; server RSS {} MB",
            each_ms(took.client, PODS_CREATED),
            server.resident_kib()? / 1024,
        ),
        reference: format!("the engine alone {engine:.0}/s; {etcd}"),
    });
    Ok(())
}

fn get(server: &mut Server, runtime: &Runtime) -> anyhow::Result<()> {
    let target = server.target().clone();
    let took = measure(server, || {
        runtime.block_on(requests(target, GETS, |index| {
            let path = format!("{PODS}/pod-{:06}", index * 7919 % PODS_CREATED);
            (Method::GET, path, Bytes::new())
        }))
    })?;
    print(&Figure {
        name: format!("get a pod, {CLIENTS} clients, TLS"),
        goal: "0.1 ms of CPU",
        reached: format!(
            "{} of CPU, {:.0}/s",
            each_ms(took.server, GETS),
            rate(GETS, took.wall)
        ),
        beside: String::new(),
        reference: String::new(),
    });
    Ok(())
}

fn list(server: &mut Server, runtime: &Runtime) -> anyhow::Result<()> {
    let target = server.target().clone();
    let mut bytes = 0;
    let took = measure(server, || {
        runtime.block_on(async {
            let mut connection = target.connect().await?;
            for _ in 0..LISTS {
                let body = connection.ask(Method::GET, PODS, Bytes::new()).await?;
                bytes = body.len();
            }
            Ok(())
        })
    })?;
    print(&Figure {
        name: format!("list of {PODS_CREATED} pods ({} MB)", bytes / 1_000_000),
        goal: "0.1 s of CPU",
        reached: format!(
            "{} of CPU, {} until the client has it",
            each_ms(took.server, LISTS),
            each_ms(took.wall, LISTS)
        ),
        beside: String::new(),
        reference: format!("memcpy {}", each_ms(references::memcpy(bytes), 1)),
    });
    Ok(())
}

fn schedule(server: &mut Server, runtime: &Runtime) -> anyhow::Result<()> {
    let target = server.target().clone();
    runtime.block_on(requests(target, NODES, |index| {
        (Method::POST, "/api/v1/nodes".to_owned(), pods::node(index))
    }))?;
    let target = server.target().clone();
    runtime.block_on(async {
        let mut connection = target.connect().await?;
        let node = connection.ask(Method::GET, "/api/v1/nodes/hollow-0", Bytes::new());
        let node: serde_json::Value = serde_json::from_slice(&node.await?)?;
        let capacity = node.pointer("/status/allocatable/pods");
        capacity.context("the API server dropped the status of a created node")?;
        anyhow::Ok(())
    })?;
    let before = server.cpu()?;
    let began = Instant::now();
    let after = server.schedule(PODS_CREATED)?;
    let (wall, cpu) = (began.elapsed(), after.saturating_sub(before));
    print(&Figure {
        name: format!("schedule {PODS_CREATED} pods on {NODES} hollow nodes, writes included"),
        goal: "0.5 ms of CPU per pod",
        reached: format!(
            "{} of CPU per pod, {:.0} pods/s",
            each_ms(cpu, PODS_CREATED),
            rate(PODS_CREATED, wall)
        ),
        beside: format!("server RSS {} MB", server.resident_kib()? / 1024),
        reference: String::new(),
    });
    Ok(())
}

/// On a server of its own: what deliveries cost beyond the writes that they tell of.
fn watch(runtime: &Runtime) -> anyhow::Result<()> {
    let mut server = start(runtime)?;
    let target = server.target().clone();
    let unwatched = measure(&mut server, || {
        runtime.block_on(create_pods(target, 0, EVENTS))
    })?;
    let target = server.target().clone();
    let path = runtime.block_on(watch_path(&target))?;
    let mut watchers = runtime.block_on(watchers(&target, &path))?;
    let target = server.target().clone();
    let watched = measure(&mut server, || {
        runtime.block_on(async {
            create_pods(target, EVENTS, EVENTS).await?;
            while let Some(ended) = watchers.join_next().await {
                ended??;
            }
            Ok(())
        })
    })?;
    let deliveries = WATCHERS * EVENTS;
    let cost = watched.server.saturating_sub(unwatched.server);
    print(&Figure {
        name: format!("watch: {WATCHERS} watchers, {EVENTS} events, TLS"),
        goal: "0.01 ms of CPU per delivery",
        reached: format!(
            "{} of CPU per delivery, {:.0} deliveries/s",
            each_ms(cost, deliveries),
            rate(deliveries, watched.wall)
        ),
        beside: format!(
            "the writes alone took {} of CPU each",
            each_ms(unwatched.server, EVENTS)
        ),
        reference: String::new(),
    });
    Ok(())
}

/// The path of a watch that begins now.
async fn watch_path(target: &Target) -> anyhow::Result<String> {
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

/// Watchers that are connected; each ends when it has had all events.
async fn watchers(target: &Target, path: &str) -> anyhow::Result<JoinSet<anyhow::Result<u64>>> {
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut stream = target.connect().await?.stream(path).await?;
        watchers.spawn(async move { stream.read_lines(EVENTS).await });
    }
    Ok(watchers)
}
