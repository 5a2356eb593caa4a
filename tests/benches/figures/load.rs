//! Many clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinSet;

use crate::client::{Connection, Target};
use crate::pods::{self, PODS};

/// How many ask at once.
pub const CLIENTS: usize = 64;
/// How many connections they share: a program of many tasks has one, over HTTP/2.
pub const CONNECTIONS: usize = 8;

/// The clients, connected: so that handshakes are not measured with what they ask.
pub async fn clients(target: &Target) -> anyhow::Result<Vec<Connection>> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CONNECTIONS {
        let connection = target.connect().await?;
        let others = (1..CLIENTS / CONNECTIONS).map(|_| connection.share());
        clients.extend(others);
        clients.push(connection);
    }
    for client in clients.iter_mut().step_by(CLIENTS / CONNECTIONS) {
        client.read("/version", crate::client::JSON).await?;
    }
    Ok(clients)
}

/// Makes `count` requests; each client has one under way at a time.
pub async fn requests(
    clients: Vec<Connection>,
    count: usize,
    request: impl Fn(usize) -> (Method, String, Bytes) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let request = Arc::new(request);
    let mut asking = JoinSet::new();
    for mut connection in clients {
        let (next, request) = (next.clone(), request.clone());
        asking.spawn(async move {
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
    while let Some(ended) = asking.join_next().await {
        ended??;
    }
    Ok(())
}

/// Creates pods of some size with the numbers from `from` on.
pub async fn create_pods(
    clients: Vec<Connection>,
    size: pods::Size,
    from: usize,
    count: usize,
) -> anyhow::Result<()> {
    requests(clients, count, move |index| {
        let body = pods::pod(&format!("pod-{:06}", from + index), size);
        (Method::POST, PODS.to_owned(), body)
    })
    .await
}
