//! The agent's end of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peapod_api::attach::{AttachError, PodNetwork};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::message::{Answer, Call, MESSAGE_MAX, decode, encode};
use crate::attacher::Attacher;

/// Connections at once; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 128;
/// For a request to come in whole, and for an answer to be taken.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for attachments at {path}: {source}; is its directory there, and on a disk with room?"
)]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// The socket, bound.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
}

// === impl Server ===

impl Server {
    /// Listens at a path, in place of a socket that an agent before has left there.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let bind = || {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| Error {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { listener })
    }

    /// Answers for ever.
    pub(crate) async fn run(self, agent: Arc<Attacher>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, usually: some must be given back first.
                    tracing::warn!(%error, "cannot take a connection for attachments");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let agent = agent.clone();
            tasks.spawn(async move {
                if let Err(error) = serve(stream, &agent).await {
                    tracing::debug!(%error, "a connection for attachments ended early");
                }
                drop(place);
            });
            while tasks.try_join_next().is_some() {}
        }
    }
}

async fn serve(stream: UnixStream, agent: &Attacher) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read.take(MESSAGE_MAX));
    let answer = if peer.uid() == 0 {
        let mut line = Vec::new();
        let reading = reader.read_until(b'\n', &mut line);
        tokio::time::timeout(TIMEOUT, reading).await??;
        match decode::<Call>(&line) {
            Ok(call) => {
                let mut rest = reader.into_inner().into_inner();
                tokio::select! {
                    answer = answer(agent, call) => answer,
                    () = hung_up(&mut rest) => return Ok(()),
                }
            }
            Err(reason) => refusal(format!("the network agent was sent {reason}")),
        }
    } else {
        refusal(format!(
            "the network agent answers root only, and user {} asked",
            peer.uid()
        ))
    };
    let line = encode(&answer).map_err(io::Error::other)?;
    tokio::time::timeout(TIMEOUT, write.write_all(&line)).await?
}

/// Whoever asked does not wait any longer. What is being done goes on.
async fn hung_up(read: &mut OwnedReadHalf) {
    let mut byte = [0];
    // A second request on this connection would be against the protocol, and ends it too.
    let _ = read.read(&mut byte).await;
}

async fn answer(agent: &Attacher, call: Call) -> Answer {
    let done = |outcome: Result<(), AttachError>| outcome.map(|()| Answer::Done);
    let outcome = match call {
        Call::Attach(request) => agent.attach(request).await.map(Answer::Attached),
        Call::Detach(request) => done(agent.detach(request).await),
        Call::Attached => agent.attached().await.map(Answer::Pods),
        Call::Ready => done(agent.ready().await),
        Call::Metrics => agent.metrics().await.map(Answer::Metrics),
        Call::Status => done(agent.status()),
        Call::Check(request) => done(agent.check(request).await),
        Call::Collect(request) => done(agent.collect(&request).await),
    };
    outcome.unwrap_or_else(Answer::Failed)
}

fn refusal(message: String) -> Answer {
    Answer::Failed(AttachError {
        retriable: false,
        message,
    })
}
