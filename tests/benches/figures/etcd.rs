//! The neighbour: Debian's etcd on the same disk, over loopback, asked by its own client.
//!
//! It is a store without an API before it, and speaks without TLS here: a Kubernetes of several
//! programs pays for its API server and for the encryption beside this.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use etcd_client::{Client, WatchOptions};
use tokio::task::JoinSet;

use crate::cpu;

/// How long it may take to serve.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where its keys are.
const PREFIX: &str = "/registry/pods/default/";

/// A private etcd, while it is held.
pub struct Etcd {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

/// What some work took.
pub struct Took {
    /// On the clock.
    pub wall: Duration,
    /// Its own CPU time.
    pub cpu: Duration,
}

// === impl Etcd ===

impl Etcd {
    /// What is said instead of a figure where there is none.
    pub const MISSING: &str = "etcd is not installed";

    /// Starts one; `None` where it is not installed.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let child = Command::new("etcd")
            .args(["--data-dir", &dir.path().display().to_string()])
            .args(["--listen-client-urls", &url])
            .args(["--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            return Ok(None);
        };
        let etcd = Self {
            child,
            url,
            _dir: dir,
        };
        etcd.ready().await?;
        Ok(Some(etcd))
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let asked = async { self.client().await?.status().await };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(error).context("etcd does not serve");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn client(&self) -> Result<Client, etcd_client::Error> {
        Client::connect([&self.url], None).await
    }

    /// Writes values of a size under keys of their own.
    pub async fn put(&self, count: usize, clients: usize, size: usize) -> anyhow::Result<Took> {
        let value = Arc::new(vec![b'x'; size]);
        self.ask(count, clients, move |mut client, index| {
            let value = value.to_vec();
            async move {
                client.put(key(index), value, None).await?;
                Ok(())
            }
        })
        .await
    }

    /// Reads the first `keys` of what was written, each read linearizable.
    pub async fn get(&self, count: usize, clients: usize, keys: usize) -> anyhow::Result<Took> {
        self.ask(count, clients, move |mut client, index| async move {
            client.get(key(index % keys), None).await?;
            Ok(())
        })
        .await
    }

    /// Has watchers read events that are all there already, as by an older revision.
    pub async fn watch(&self, events: usize, watchers: usize, size: usize) -> anyhow::Result<Took> {
        self.put(events, 64, size).await?;
        let mut reading = JoinSet::new();
        let before = cpu::of(self.child.id())?;
        let began = Instant::now();
        // A stream of etcd carries many watches; each connection has a hundred.
        let mut client = self.client().await?;
        for at in 0..watchers {
            if at % 100 == 99 {
                client = self.client().await?;
            }
            let mut client = client.clone();
            reading.spawn(async move {
                let options = WatchOptions::new().with_prefix().with_start_revision(1);
                let mut stream = client.watch(PREFIX, Some(options)).await?;
                let mut seen = 0;
                while seen < events {
                    let message = stream.message().await?;
                    seen += message.context("etcd ended a watch")?.events().len();
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = reading.join_next().await {
            ended??;
        }
        self.took(began, before)
    }

    async fn ask<F>(
        &self,
        count: usize,
        clients: usize,
        request: impl Fn(Client, usize) -> F + Send + Sync + 'static,
    ) -> anyhow::Result<Took>
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let next = Arc::new(AtomicUsize::new(0));
        let request = Arc::new(request);
        let mut asking = JoinSet::new();
        let client = self.client().await?;
        let before = cpu::of(self.child.id())?;
        let began = Instant::now();
        for _ in 0..clients {
            let (client, next, request) = (client.clone(), next.clone(), request.clone());
            asking.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return anyhow::Ok(());
                    }
                    request(client.clone(), index).await?;
                }
            });
        }
        while let Some(ended) = asking.join_next().await {
            ended??;
        }
        self.took(began, before)
    }

    fn took(&self, began: Instant, before: Duration) -> anyhow::Result<Took> {
        Ok(Took {
            wall: began.elapsed(),
            cpu: cpu::of(self.child.id())?.saturating_sub(before),
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(index: usize) -> String {
    format!("{PREFIX}pod-{index:06}")
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
