//! The server's process: the API server over TLS on the disk, and, once asked for, the scheduler.
//!
//! It says on standard output where it listens, then answers one line per line of standard input:
//! `cpu` with its CPU time in microseconds; `schedule N` with the same, once the scheduler, which
//! then starts, has bound N pods and has written what it says about them. It ends with its input.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use peapod_apiserver::ApiServer;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cpu;

/// Serves with the state in `dir`.
pub fn run(dir: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(PathBuf::from(dir)))
}

async fn serve(dir: PathBuf) -> anyhow::Result<()> {
    let config = peapod_apiserver::Config::new(&dir);
    let server = ApiServer::start(config).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, server.admin_kubeconfig(&url)?)?;
    let shutdown = CancellationToken::new();
    // The measurement counts events too, which the scheduler itself may not list.
    let client = server.client("system:kube-scheduler", &["system:masters"]);
    let mut commands = commands();
    tokio::select! {
        served = server.serve(vec![listener], shutdown.clone()) => served?,
        answered = async {
            say(&kubeconfig.display().to_string())?;
            while let Some(command) = commands.recv().await {
                answer(&command, &client).await?;
            }
            anyhow::Ok(())
        } => answered?,
    }
    Ok(())
}

/// Lines of standard input; a thread reads them, since reading blocks.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn answer(command: &str, client: &Client) -> anyhow::Result<()> {
    if let Some(count) = command.strip_prefix("schedule ") {
        schedule(client, count.parse()?).await?;
    }
    say(&cpu::of_this_process()?.as_micros().to_string())
}

/// Runs the scheduler until `count` pods are bound and its events are written.
async fn schedule(client: &Client, count: usize) -> anyhow::Result<()> {
    let metrics = peapod_scheduler::metrics::Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let config = peapod_scheduler::Config {
        metrics,
        ..peapod_scheduler::Config::default()
    };
    let shutdown = CancellationToken::new();
    let running = peapod_scheduler::run(client.clone(), config, shutdown.clone());
    let done = async {
        let tick = || tokio::time::sleep(Duration::from_millis(20));
        while scheduled(&registry)? < count {
            tick().await;
        }
        let mut before = 0;
        loop {
            let now = events(client).await?;
            if now >= count || now == before {
                return anyhow::Ok(());
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        ended = running => anyhow::bail!("the scheduler ended: {ended:?}"),
        done = done => done,
    }
}

fn scheduled(registry: &Registry) -> anyhow::Result<usize> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let mut lines = text.lines();
    let line = lines.find(|line| {
        line.starts_with("scheduler_schedule_attempts_total{") && line.contains("\"scheduled\"")
    });
    let count = line.and_then(|line| line.rsplit(' ').next());
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

async fn events(client: &Client) -> anyhow::Result<usize> {
    let events = Api::<Event>::all(client.clone());
    let page = events.list(&ListParams::default().limit(1)).await;
    let page = page.context("cannot count the events")?;
    let rest = page.metadata.remaining_item_count.unwrap_or(0);
    Ok(page.items.len() + usize::try_from(rest).unwrap_or(0))
}
