//! The agent's end.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::daemon::Daemon;
use crate::protocol::{ExecInput, ExecSpec, MESSAGE_MAX, Reply, Request, Task, TaskSpec};

/// How long the shim may take for a request: an OCI runtime on a busy machine takes seconds.
pub const REPLY_LIMIT: Duration = Duration::from_secs(120);
/// How often a request is made before its failure is told.
const ATTEMPTS: u32 = 5;

/// Speaks to the shim of a node, and starts it when it is not there.
#[derive(Debug)]
pub struct Shim {
    daemon: Daemon,
    dir: PathBuf,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It cannot be reached or started.
    Unreachable(String),
    /// It does not answer.
    Late,
    /// It has not done it.
    Failed(String),
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// The ends of containers.
pub struct Ends(BufReader<UnixStream>);

/// Where root file systems are mounted, each for its container only.
pub fn rootfs_in(dir: &Path) -> PathBuf {
    dir.join("rootfs")
}

// === impl Shim ===

impl Shim {
    /// The shim that keeps its own in `dir`, of the containers that have their directories below
    /// `containers`. `command` is the program and its first arguments.
    pub fn new(mut command: Vec<OsString>, containers: &Path, dir: PathBuf) -> Self {
        command.extend([containers.into(), dir.as_os_str().to_owned()]);
        Self {
            daemon: Daemon::new(command, dir.join("shim.sock")),
            dir,
        }
    }

    /// What a container's specification names as its root.
    pub fn rootfs(&self) -> PathBuf {
        rootfs_in(&self.dir)
    }

    /// Starts a container; one that was started is left alone.
    pub async fn start(&self, spec: TaskSpec) -> Result<Task> {
        let reply = self.request(&Request::Start(spec)).await?;
        self.task(reply)?.ok_or_else(|| self.confused())
    }

    /// A container.
    pub async fn get(&self, id: &str) -> Result<Option<Task>> {
        let reply = self.request(&Request::Get(id.to_owned())).await?;
        self.task(reply)
    }

    /// All containers.
    pub async fn list(&self) -> Result<Vec<Task>> {
        match self.request(&Request::List).await? {
            Reply::Tasks(tasks) => Ok(tasks),
            _ => Err(self.confused()),
        }
    }

    /// Waits for a container's end, however long.
    pub async fn wait(&self, id: &str) -> Result<Option<Task>> {
        let mut stream = self.open(&Request::Wait(id.to_owned())).await?;
        let reply = self.reply(&mut stream).await?;
        self.task(reply)
    }

    /// A request that is answered by [`Reply::Done`]. That there is no such container is no
    /// error.
    pub async fn order(&self, request: &Request) -> Result<()> {
        match self.request(request).await? {
            Reply::Done | Reply::NotFound => Ok(()),
            _ => Err(self.confused()),
        }
    }

    /// Starts a command; returns when it runs. Dropping what is returned kills it.
    pub async fn exec(&self, spec: ExecSpec) -> Result<(ExecInputs, ExecEnd)> {
        let stream = self.open(&Request::Exec(spec)).await?.into_inner();
        let (input, output) = stream.into_split();
        let mut input = BufReader::new(input);
        let reply = timeout(REPLY_LIMIT, self.reply(&mut input)).await;
        match reply.map_err(|_| Error::Late)?? {
            Reply::Started => Ok((ExecInputs(output), ExecEnd(input))),
            Reply::NotFound => Err(Error::Failed("there is no such container".to_owned())),
            _ => Err(self.confused()),
        }
    }

    /// The ends of containers, first of all those that were not deleted.
    pub async fn ends(&self) -> Result<Ends> {
        Ok(Ends(self.open(&Request::Events).await?))
    }

    /// Its process, if it runs.
    pub async fn process(&self) -> Option<u32> {
        let stream = self.daemon.find().await.ok()?;
        let mut stream = BufReader::new(stream);
        self.send(&mut stream, &Request::Hello).await.ok()?;
        match timeout(REPLY_LIMIT, self.reply(&mut stream)).await {
            Ok(Ok(Reply::Hello { pid, .. })) => Some(pid),
            _ => None,
        }
    }

    /// Ends the process, if it runs, and removes the mount that it has made.
    pub async fn shutdown(&self) -> Result<()> {
        if let Ok(stream) = self.daemon.find().await {
            let mut stream = BufReader::new(stream);
            self.send(&mut stream, &Request::Shutdown).await?;
            let _ = timeout(REPLY_LIMIT, self.reply(&mut stream)).await;
            // It holds the connection until it ends.
            let _ = timeout(REPLY_LIMIT, stream.read_u8()).await;
        }
        let _ = std::fs::remove_file(self.daemon.socket());
        match umount2(&self.rootfs(), MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(Error::Failed(format!(
                "cannot unmount {}: {error}",
                self.rootfs().display()
            ))),
        }
    }

    /// Replaces a shim of another version that has no containers; one that has goes on serving them.
    pub async fn renew(&self, version: &str) -> Result<()> {
        match self.request(&Request::Hello).await? {
            Reply::Hello {
                version: other,
                tasks: 0,
                ..
            } if other != version => self.shutdown().await,
            _ => Ok(()),
        }
    }

    /// Requests may be repeated: when the shim dies over one, the next shim gets it.
    async fn request(&self, request: &Request) -> Result<Reply> {
        let mut attempt = 1;
        loop {
            let answered = async {
                let mut stream = self.open(request).await?;
                self.reply(&mut stream).await
            };
            match timeout(REPLY_LIMIT, answered).await {
                Ok(Err(Error::Unreachable(_))) if attempt < ATTEMPTS => attempt += 1,
                Ok(result) => return result,
                Err(_) => return Err(Error::Late),
            }
        }
    }

    async fn open(&self, request: &Request) -> Result<BufReader<UnixStream>> {
        let stream = self.daemon.connect().await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let mut stream = BufReader::new(stream);
        self.send(&mut stream, request).await?;
        Ok(stream)
    }

    async fn send(&self, stream: &mut BufReader<UnixStream>, request: &Request) -> Result<()> {
        let text = line_of(request).map_err(|error| self.unreachable(&error))?;
        let sent = stream.write_all(&text).await;
        sent.map_err(|error| self.unreachable(&error))
    }

    async fn reply(&self, stream: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Reply> {
        match read_reply(stream).await {
            Ok(Reply::Failed(reason)) => Err(Error::Failed(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn task(&self, reply: Reply) -> Result<Option<Task>> {
        match reply {
            Reply::Task(task) => Ok(Some(task)),
            Reply::NotFound => Ok(None),
            _ => Err(self.confused()),
        }
    }

    fn confused(&self) -> Error {
        Error::Failed("the shim's answer is none to what it was asked".to_owned())
    }

    fn unreachable(&self, error: &io::Error) -> Error {
        let socket = self.daemon.socket().display();
        Error::Unreachable(format!("cannot reach the shim at {socket}: {error}"))
    }
}

/// The end of a command, when it comes.
pub struct ExecEnd(BufReader<OwnedReadHalf>);

/// The way to a command that runs.
pub struct ExecInputs(OwnedWriteHalf);

// === impl ExecEnd ===

impl ExecEnd {
    /// The exit code; `None` when something that was said has been done.
    pub async fn next(&mut self) -> Result<Option<i32>> {
        match read_reply(&mut self.0).await {
            Ok(Reply::Exited(code)) => Ok(Some(code)),
            Ok(Reply::Done) => Ok(None),
            Ok(_) => Err(Error::Failed(
                "the shim does not tell how the command ended".to_owned(),
            )),
            Err(error) => {
                let reason = format!("the shim went away while the command ran: {error}");
                Err(Error::Unreachable(reason))
            }
        }
    }
}

// === impl ExecInputs ===

impl ExecInputs {
    /// Says something to it, if it still runs: [`ExecEnd::next`] tells when that is done.
    pub async fn say(&mut self, input: &ExecInput) {
        if let Ok(text) = line_of(input) {
            let _ = self.0.write_all(&text).await;
        }
    }
}

// === impl Ends ===

impl Ends {
    /// The next container that ended; `None` when all that had ended before have been told.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        match read_reply(&mut self.0).await? {
            Reply::Ended(id) => Ok(Some(id)),
            _ => Ok(None),
        }
    }
}

fn line_of(message: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text)
}

async fn read_reply(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Reply> {
    let mut line = String::new();
    let length = stream.take(MESSAGE_MAX as u64).read_line(&mut line).await?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
