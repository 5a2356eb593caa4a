//! The other end of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::message::{Answer, Call, MESSAGE_MAX, decode, encode};

/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error(
        "the network agent does not answer at {socket}: {source}; is `peapod netd` running, or `peapod up`?"
    )]
    Away {
        /// Where it should.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It says no.
    #[error(transparent)]
    Refused(#[from] AttachError),
    /// It answers with what nobody understands.
    #[error("the network agent at {socket} answered with {detail}")]
    Nonsense {
        /// Where it is.
        socket: PathBuf,
        /// What it answered with.
        detail: String,
    },
}

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Away { .. } => true,
            Error::Refused(error) => error.retriable,
            Error::Nonsense { .. } => false,
        }
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(error) => error,
            other => AttachError {
                retriable: other.is_retriable(),
                message: other.to_string(),
            },
        }
    }
}

/// The network agent of this node, in a process of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

// === impl Client ===

impl Client {
    /// The agent behind a socket. An agent that is away is asked again for as long as
    /// `patience`: it may just be restarting.
    pub fn new(socket: &Path, patience: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            patience,
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the agent stays away, or refuses.
    pub async fn ask(&self, call: &Call) -> Result<Answer, Error> {
        let request = encode(call).map_err(|detail| self.nonsense(detail))?;
        let give_up = Instant::now() + self.patience;
        let mut pause = PAUSES.0;
        loop {
            match exchange(&self.socket, &request).await {
                Ok(line) => {
                    let answer = decode(&line).map_err(|detail| self.nonsense(detail))?;
                    return match answer {
                        Answer::Failed(error) => Err(error.into()),
                        other => Ok(other),
                    };
                }
                Err(source) if Instant::now() + pause > give_up => {
                    return Err(Error::Away {
                        socket: self.socket.clone(),
                        source,
                    });
                }
                Err(error) => tracing::debug!(%error, "the network agent is away"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn nonsense(&self, detail: String) -> Error {
        Error::Nonsense {
            socket: self.socket.clone(),
            detail,
        }
    }

    /// Asks for something that is answered by its being so.
    async fn done(&self, call: &Call) -> Result<(), AttachError> {
        match self.ask(call).await? {
            Answer::Done => Ok(()),
            other => Err(self.unasked(&other).into()),
        }
    }

    fn unasked(&self, answer: &Answer) -> Error {
        self.nonsense(format!("what was not asked for: {answer:?}"))
    }
}

#[async_trait]
impl PodNetwork for Client {
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError> {
        match self.ask(&Call::Attach(request)).await? {
            Answer::Attached(reply) => Ok(reply),
            other => Err(self.unasked(&other).into()),
        }
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError> {
        self.done(&Call::Detach(request)).await
    }

    async fn attached(&self) -> Result<Vec<PodRef>, AttachError> {
        match self.ask(&Call::Attached).await? {
            Answer::Pods(pods) => Ok(pods),
            other => Err(self.unasked(&other).into()),
        }
    }

    async fn ready(&self) -> Result<(), AttachError> {
        self.done(&Call::Ready).await
    }

    async fn metrics(&self) -> Result<String, AttachError> {
        match self.ask(&Call::Metrics).await? {
            Answer::Metrics(text) => Ok(text),
            other => Err(self.unasked(&other).into()),
        }
    }
}

/// Sends a line and receives one. How long the answer takes is the agent's affair: it has
/// bounds of its own, and the connection ends with it.
async fn exchange(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    // An agent that refuses whoever asks does not read the request to its end.
    let sent = stream.write_all(request).await;
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(MESSAGE_MAX))
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        sent?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}
