//! The agent's end of the log writer: starts the process, tells it what to do, and starts it again when
//! it dies.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peapod_shim::daemon::Daemon;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{LOG_RECORD, LogSpec, MESSAGE_MAX, Reply, Request};
use super::writer::Args;
use crate::runtime::{Error, Result};

/// A request is a few system calls; a disk that hangs is the exception.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// How often a request is made before its failure is told.
const ATTEMPTS: u32 = 5;
/// Pause before a writer that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How to start the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Program and first arguments; the writer's own follow. Usually this program with
    /// `log-writer`.
    pub command: Vec<OsString>,
    /// Its socket.
    pub socket: PathBuf,
    /// What to do.
    pub args: Args,
}

/// Speaks to the log writer of this node.
pub struct LogWriter {
    daemon: Daemon,
}

// === impl LogWriter ===

impl LogWriter {
    /// Nothing is started yet.
    pub fn new(config: Config) -> Self {
        let Config {
            mut command,
            socket,
            args,
        } = config;
        command.extend(args.to_words().map(OsString::from));
        Self {
            daemon: Daemon::new(command, socket),
        }
    }

    /// Lets the writer take care of a container. From then on it does so after any restart of its own, too.
    pub async fn open(&self, spec: &LogSpec) -> Result<()> {
        let record = spec.dir.join(LOG_RECORD);
        let text = serde_json::to_vec(spec).map_err(io::Error::from);
        text.and_then(|text| fs::write(&record, text))
            .map_err(|error| Error::Failed {
                what: format!("writing {}", record.display()),
                reason: error.to_string(),
            })?;
        self.request(&Request::Open(spec.clone())).await
    }

    /// Waits until what the container wrote is in its file.
    pub async fn flush(&self, id: &str) -> Result<()> {
        self.request(&Request::Flush(id.to_owned())).await
    }

    /// The container's output is complete: waits until it is in its file, and ends the work.
    pub async fn close(&self, id: &str, dir: &Path) -> Result<()> {
        self.request(&Request::Close(id.to_owned())).await?;
        let _ = fs::remove_file(dir.join(LOG_RECORD));
        Ok(())
    }

    /// The container's output from now on, as frames
    /// ([`super::protocol::read_frame`]).
    pub async fn attach(&self, id: &str) -> Result<BufReader<UnixStream>> {
        let mut stream = BufReader::new(self.connect().await?);
        self.exchange(&mut stream, &Request::Attach(id.to_owned()))
            .await?;
        Ok(stream)
    }

    /// Ends the process, if it runs.
    pub async fn shutdown(&self) -> Result<()> {
        if let Ok(stream) = self.daemon.find().await {
            self.exchange(&mut BufReader::new(stream), &Request::Shutdown)
                .await?;
        }
        let _ = fs::remove_file(self.daemon.socket());
        Ok(())
    }

    /// Keeps the writer running: starts it, waits for its end, starts it again. Never returns.
    pub async fn keep_running(&self) {
        loop {
            if let Err(error) = self.watch().await {
                tracing::warn!(%error, "the log writer cannot be reached");
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Returns when the writer is gone.
    async fn watch(&self) -> Result<()> {
        let mut stream = BufReader::new(self.connect().await?);
        self.send(&mut stream, &Request::Watch).await?;
        let mut byte = [0; 1];
        let _ = stream.read(&mut byte).await;
        Ok(())
    }

    /// Requests may be repeated: when the writer dies over one, the next writer gets it.
    async fn request(&self, request: &Request) -> Result<()> {
        let mut attempt = 1;
        loop {
            let mut stream = BufReader::new(self.connect().await?);
            match self.exchange(&mut stream, request).await {
                Err(Error::Unavailable(_)) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn exchange(&self, stream: &mut BufReader<UnixStream>, request: &Request) -> Result<()> {
        self.send(stream, request).await?;
        let mut line = String::new();
        let read = async { stream.take(MESSAGE_MAX as u64).read_line(&mut line).await };
        match timeout(REPLY_LIMIT, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => {
                let what = "the log writer's work".to_owned();
                return Err(Error::Timeout {
                    what,
                    limit: REPLY_LIMIT,
                });
            }
        }
        match serde_json::from_str(&line) {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed(reason)) => Err(Error::Failed {
                what: "the log writer".to_owned(),
                reason,
            }),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    async fn send(&self, stream: &mut BufReader<UnixStream>, request: &Request) -> Result<()> {
        let mut text = serde_json::to_vec(request).map_err(|error| self.unreachable(&error))?;
        text.push(b'\n');
        stream
            .write_all(&text)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    async fn connect(&self) -> Result<UnixStream> {
        let stream = self.daemon.connect().await;
        stream.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Unavailable(format!(
            "cannot reach the log writer at {}: {error}",
            self.daemon.socket().display()
        ))
    }
}
