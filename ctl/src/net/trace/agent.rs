//! Looks on nodes elsewhere: the node's agent answers them, and whoever may look into the node
//! (`nodes/proxy`) may ask. So a trace needs neither root nor a login there.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::look::{Look, Seen, look};
use crate::client::Session;
use crate::net::local::LocalNode;
use crate::net::source::encoded;
use crate::roles::node::TRACE_AGENT;

/// Longest question, in bytes.
const QUESTION_MAX: u64 = 4 * 1024;
/// Longest time to wait for a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks at one time; others wait.
const AT_ONCE: usize = 4;
/// Connections at one time; further ones wait to be accepted.
const WAITING: usize = 32;

/// What is answered, in one line.
type Answer = Result<Seen, String>;

/// Answers on a socket, which only root may use, for ever. A node is well without it.
///
/// # Errors
/// None.
pub async fn serve(node: LocalNode, socket: PathBuf) -> Result<()> {
    let listener = match listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(socket = %socket.display(), %error, "no traces from elsewhere: cannot listen");
            return std::future::pending().await;
        }
    };
    let (node, turns) = (Arc::new(node), Arc::new(Semaphore::new(AT_ONCE)));
    let mut open = JoinSet::new();
    loop {
        while open.len() >= WAITING {
            open.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                open.spawn(answer(stream, Arc::clone(&node), Arc::clone(&turns)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a question about a packet's way");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while open.try_join_next().is_some() {}
    }
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // What is there is of a process before this one.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, node: Arc<LocalNode>, turns: Arc<Semaphore>) {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let mut question = BufReader::new(read.take(QUESTION_MAX));
    let asked = tokio::time::timeout(PATIENCE, question.read_line(&mut line)).await;
    if !matches!(asked, Ok(Ok(_))) {
        return;
    }
    let Ok(_turn) = turns.acquire().await else {
        return;
    };
    let looked = tokio::task::spawn_blocking(move || answered(&node, &line)).await;
    let answer = looked.unwrap_or_else(|error| Err(format!("the look failed: {error}")));
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        // Who asked may be gone.
        let _ = write.write_all(&text).await;
    }
}

fn answered(node: &LocalNode, line: &str) -> Answer {
    let what: Look = serde_json::from_str(line).map_err(|error| format!("no question: {error}"))?;
    look(node, &what).map_err(|error| format!("{error:#}"))
}

/// Asks a node's agent.
pub async fn ask(session: &Session, node: &str, what: &Look) -> Result<Seen> {
    let question = encoded(&serde_json::to_string(what)?);
    let path = format!("/api/v1/nodes/{node}/proxy/agents/{TRACE_AGENT}?ask={question}");
    let request = http::Request::get(path).body(Vec::new())?;
    let answer = session.client().request_text(request).await;
    let answer = answer
        .map_err(crate::client::server_error)
        .with_context(|| {
            format!(
                "cannot ask node {node} (that takes `get` of nodes/proxy, and a node that is up)"
            )
        })?;
    let answer: Answer = serde_json::from_str(&answer).with_context(|| {
        format!("node {node} answers what is no answer; is it of another version?")
    })?;
    answer.map_err(|error| anyhow!("node {node} cannot tell: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(socket: &Path, question: &[u8]) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(question).await.unwrap();
        let mut text = String::new();
        let mut answer = BufReader::new(stream);
        answer.read_line(&mut text).await.unwrap();
        text
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_are_answered_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("trace.sock");
        let node = LocalNode {
            name: "a".into(),
            netns: None,
            sandboxes: dir.path().to_owned(),
            control: dir.path().to_owned(),
        };
        // As a process that was killed leaves it.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(serve(node, socket.clone()));
        while UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
        let flow = peapod_netd::probe::route::Flow {
            source: None,
            destination: "127.0.0.1".parse().unwrap(),
            protocol: 6,
            source_port: 0,
            destination_port: 80,
            input: None,
        };
        let line = serde_json::to_string(&Look::Arriving(flow)).unwrap() + "\n";
        let seen: Answer = serde_json::from_str(&said(&socket, line.as_bytes()).await).unwrap();
        let Ok(Seen::Arrived(route)) = seen else {
            panic!("{seen:?}");
        };
        assert_eq!(route.fate, peapod_netd::probe::route::Fate::Local);
        let nonsense: Answer = serde_json::from_str(&said(&socket, b"what?\n").await).unwrap();
        assert!(nonsense.unwrap_err().contains("no question"));
        let endless = vec![b'x'; 5000];
        let cut: Answer = serde_json::from_str(&said(&socket, &endless).await).unwrap();
        assert!(cut.is_err());
    }
}
