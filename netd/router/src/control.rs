//! The control socket: people and programs look into a running router.
//!
//! A request is one line of JSON; the answer is one line of JSON for each item, the last of
//! which is `{"end":true}` or `{"error":"..."}`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peapod_bgp::rib::Slot;
pub use peapod_bgp::speaker::{FamilyView, PathView, PeerView, RouteView};

pub use crate::kernel::fib::Audit;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Error;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "show"
)]
pub enum Request {
    /// The neighbours.
    Peers,
    /// The kernel's routes against those that should be there: compared now, wrong ones repaired.
    Audit,
    /// Routes: all, or those received from or advertised to a neighbour.
    Routes {
        /// A neighbour, by address or interface.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received: Option<String>,
        /// A neighbour, by address or interface.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advertised: Option<String>,
    },
}

/// A neighbour, with what BFD says of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownPeer {
    /// The neighbour.
    #[serde(flatten)]
    pub peer: PeerView,
    /// State of its BFD session, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
}

/// A route, with what became of it in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownRoute {
    /// The route.
    #[serde(flatten)]
    pub route: RouteView,
    /// Why the kernel does not have it, if it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_error: Option<String>,
}

/// The end of an answer.
#[derive(Debug, Default, Serialize, Deserialize)]
struct End {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    end: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A question to the router's task; it answers in pages, so that it is never busy for long.
#[derive(Debug)]
pub(crate) struct Question {
    pub request: Request,
    /// Where to go on.
    pub from: Cursor,
    pub answer: oneshot::Sender<Page>,
}

/// A place in the tables: family (0 or 1) and slot.
pub(crate) type Cursor = (usize, Slot);

/// A part of an answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub lines: Result<Vec<String>, String>,
    pub next: Option<Cursor>,
}

/// Connections at a time.
const CONNECTIONS: usize = 16;
const REQUEST_BYTES: u64 = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// The control socket of a router, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    tasks: JoinSet<()>,
}

// === impl Server ===

impl Server {
    /// Listens at a path, in place of a socket that a router before has left there.
    pub fn start(path: &Path, questions: mpsc::Sender<Question>) -> Result<Self, Error> {
        let failed = |source| Error::Control {
            path: path.to_owned(),
            source,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, questions));
        Ok(Server {
            path: path.to_owned(),
            tasks,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.abort_all();
        // Somebody else may have removed it; then it is as it should be.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let questions = questions.clone();
        tasks.spawn(async move {
            if let Err(error) = answer(stream, &questions).await {
                tracing::debug!(%error, "a control connection ended early");
            }
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: UnixStream, questions: &mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(REQUEST_BYTES));
    tokio::time::timeout(TIMEOUT, reader.read_line(&mut line)).await??;
    let end = match serde_json::from_str::<Request>(&line) {
        Err(error) => End {
            error: Some(format!("not a request: {error}")),
            end: false,
        },
        Ok(request) => pages(&request, questions, &mut write).await?,
    };
    let mut last = serde_json::to_string(&end)?;
    last.push('\n');
    write.write_all(last.as_bytes()).await
}

async fn pages(
    request: &Request,
    questions: &mpsc::Sender<Question>,
    write: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<End> {
    let mut cursor = Some((0, 0));
    while let Some(from) = cursor {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            request: request.clone(),
            from,
            answer,
        };
        let stopping = || io::Error::other("the router is stopping");
        questions.send(question).await.map_err(|_| stopping())?;
        let page = answered.await.map_err(|_| stopping())?;
        match page.lines {
            Err(error) => {
                return Ok(End {
                    error: Some(error),
                    end: false,
                });
            }
            Ok(lines) => {
                let mut text = lines.join("\n");
                if !text.is_empty() {
                    text.push('\n');
                }
                tokio::time::timeout(TIMEOUT, write.write_all(text.as_bytes())).await??;
            }
        }
        cursor = page.next;
    }
    Ok(End {
        end: true,
        error: None,
    })
}

/// Asks the router at a socket for its neighbours.
///
/// # Errors
/// If there is none, or it refuses.
pub fn peers(socket: &Path) -> io::Result<Vec<ShownPeer>> {
    ask(socket, &Request::Peers)
}

/// Has the router at a socket compare the kernel's routes with those that should be there.
///
/// # Errors
/// If there is none, or it installs nothing.
pub fn audit(socket: &Path) -> io::Result<Audit> {
    let found: Vec<Audit> = ask(socket, &Request::Audit)?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Answers whoever asked for an audit, when it is done.
pub(crate) async fn answer_audit(audited: oneshot::Receiver<Audit>, answer: oneshot::Sender<Page>) {
    let lines = match audited.await {
        Ok(audit) => serde_json::to_string(&audit)
            .map(|line| vec![line])
            .map_err(|error| error.to_string()),
        Err(_) => Err("the router is stopping".to_owned()),
    };
    // Who asked may be gone.
    let _ = answer.send(Page { lines, next: None });
}

/// Asks the router at a socket for routes, in order.
///
/// # Errors
/// If there is none, or it refuses.
pub fn routes(
    socket: &Path,
    received: Option<String>,
    advertised: Option<String>,
) -> io::Result<Vec<ShownRoute>> {
    let request = Request::Routes {
        received,
        advertised,
    };
    Ok(in_order(ask(socket, &request)?))
}

/// Routes as people look for them: by prefix.
pub fn in_order(mut routes: Vec<ShownRoute>) -> Vec<ShownRoute> {
    routes.sort_by_key(|shown| shown.route.prefix);
    routes
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> io::Result<Vec<T>> {
    let mut stream = BlockingStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    read(BufReader::new(stream))
}

/// Reads an answer, wherever it comes from.
///
/// # Errors
/// If the router refuses, or its answer is not whole.
pub fn read<T: DeserializeOwned>(answer: impl BufRead) -> io::Result<Vec<T>> {
    let mut items = Vec::new();
    for line in answer.lines() {
        let line = line?;
        let end: End = serde_json::from_str(&line).unwrap_or_default();
        match end {
            End {
                error: Some(error), ..
            } => return Err(io::Error::other(error)),
            End { end: true, .. } => return Ok(items),
            End { .. } => items.push(serde_json::from_str(&line)?),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the router closed before its answer ended",
    ))
}
