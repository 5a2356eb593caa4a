//! Commands in running containers, and streams to and from processes.
//!
//! A command's streams are fifos in a directory of its own; the shim is at the other end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::left_commands::PREFIX;
use super::state::make_fifo;
use super::tasks::{ExecRequest, Running};
use crate::logs::format::Stream;
use crate::logs::protocol::read_frame;
use crate::runtime::{
    ContainerId, ContainerState, EXEC_OUTPUT_MAX, Error, ExecOutput, ExecSpec, Result, Streams,
    TerminalSize, spec,
};

/// How long the output of a command that has ended may go on: a child of it may have inherited
/// the streams, and would hold them open for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

type Output = Box<dyn AsyncWrite + Send + Unpin>;

impl Shared {
    /// Runs a command with the caller's streams.
    pub(super) async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        spec: &ExecSpec,
        streams: Streams,
    ) -> Result<i32> {
        self.require_running(id, "exec").await?;
        let command = Command::prepare(self, id, spec, streams.stdin.is_some())?;
        command.run(spec, streams).await
    }

    /// Runs a command and collects its output.
    pub(super) async fn exec_sync(
        self: &Arc<Self>,
        id: &ContainerId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutput> {
        let (stdout, stderr) = (Capped::default(), Capped::default());
        let spec = ExecSpec {
            command: command.to_vec(),
            tty: false,
        };
        let streams = Streams {
            stdout: Some(Box::new(stdout.clone())),
            stderr: Some(Box::new(stderr.clone())),
            ..Streams::default()
        };
        let code = match timeout(limit, self.exec(id, &spec, streams)).await {
            Ok(code) => code?,
            Err(_) => {
                let what = format!("command {:?}", command.join(" "));
                return Err(Error::Timeout { what, limit });
            }
        };
        Ok(ExecOutput {
            code,
            stdout: stdout.take(),
            stderr: stderr.take(),
        })
    }

    /// Connects the caller's streams to the first process.
    pub(super) async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Option<i32>> {
        self.require_running(id, "attach").await?;
        let record = self.record(id)?;
        let mut frames = self.logs.attach(&id.0).await?;
        let Streams {
            stdin,
            mut stdout,
            mut stderr,
            resize,
        } = streams;
        let output = async {
            while let Ok(Some((stream, bytes))) = read_frame(&mut frames).await {
                let target = match stream {
                    Stream::Stdout => &mut stdout,
                    Stream::Stderr => &mut stderr,
                };
                if let Some(target) = target
                    && (target.write_all(&bytes).await.is_err() || target.flush().await.is_err())
                {
                    return false;
                }
            }
            true
        };
        let input = async {
            if let (Some(stdin), true) = (stdin, record.spec.stdin) {
                let fifo = PathBuf::from(self.states.of(id).fifo("stdin"));
                copy_input(stdin, &fifo).await;
                if record.spec.stdin_once {
                    self.tasks_of(&record).close_stdin(id).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let tasks = self.tasks_of(&record);
        let resizing = resize_by(resize, |size| tasks.resize(id, size));
        let complete = tokio::select! {
            complete = output => complete,
            () = input => false,
            () = resizing => false,
        };
        if !complete {
            return Ok(None);
        }
        // The log is closed when the container is settled.
        match self.get(id).await?.state {
            ContainerState::Exited(exit) => Ok(Some(exit.code)),
            _ => Ok(None),
        }
    }

    async fn require_running(&self, id: &ContainerId, what: &'static str) -> Result<()> {
        let state = match self.get(id).await?.state {
            ContainerState::Running { .. } => return Ok(()),
            ContainerState::Created => "created",
            ContainerState::Exited(_) => "exited",
        };
        Err(Error::NotRunning {
            id: id.clone(),
            state: state.to_owned(),
            what,
        })
    }
}

/// Passes on sizes of a terminal; never returns.
async fn resize_by<F: Future<Output = ()>>(
    sizes: Option<mpsc::Receiver<TerminalSize>>,
    resize: impl Fn(TerminalSize) -> F,
) {
    if let Some(mut sizes) = sizes {
        while let Some(size) = sizes.recv().await {
            resize(size).await;
        }
    }
    std::future::pending().await
}

/// A command in a container, and its streams. Dropping it removes its traces.
struct Command {
    shared: Arc<Shared>,
    id: ContainerId,
    exec_id: String,
    dir: PathBuf,
    stdin: bool,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

// === impl Command ===

impl Command {
    fn prepare(
        shared: &Arc<Shared>,
        id: &ContainerId,
        spec: &ExecSpec,
        stdin: bool,
    ) -> Result<Self> {
        if spec.command.is_empty() {
            return Err(Error::Invalid("no command to run was given".to_owned()));
        }
        let exec_id = format!("{PREFIX}{}", uuid::Uuid::new_v4());
        let dir = shared.states.of(id).dir().join(&exec_id);
        let mut command = Self {
            shared: Arc::clone(shared),
            id: id.clone(),
            exec_id,
            dir,
            stdin,
            stdout: None,
            stderr: None,
        };
        command.open(spec.tty).map_err(|error| Error::Failed {
            what: format!("making the streams of a command in container {id}"),
            reason: error.to_string(),
        })?;
        Ok(command)
    }

    /// Our ends are opened before the shim's: the end of file comes when the shim lets go.
    fn open(&mut self, tty: bool) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        for name in ["stdin", "stdout", "stderr"] {
            make_fifo(&self.dir.join(name))?;
        }
        self.stdout = Some(OpenOptions::new().open_receiver(self.dir.join("stdout"))?);
        if !tty {
            self.stderr = Some(OpenOptions::new().open_receiver(self.dir.join("stderr"))?);
        }
        Ok(())
    }

    async fn run(mut self, spec: &ExecSpec, streams: Streams) -> Result<i32> {
        let running = self.start(spec).await?;
        let Streams {
            stdin,
            stdout,
            stderr,
            resize,
        } = streams;
        let output = {
            let stdout = copy_output(self.stdout.take(), stdout);
            let stderr = copy_output(self.stderr.take(), stderr);
            async { tokio::join!(stdout, stderr) }
        };
        tokio::pin!(output);
        let input = async {
            if let Some(stdin) = stdin {
                copy_input(stdin, &self.dir.join("stdin")).await;
                running.close_stdin().await;
            }
            std::future::pending::<()>().await;
        };
        let mut drained = false;
        let code = {
            let input = input;
            let resizing = resize_by(resize, |size| running.resize(size));
            let exit = running.wait();
            tokio::pin!(input, resizing, exit);
            loop {
                tokio::select! {
                    code = &mut exit => break code?,
                    _ = &mut output, if !drained => drained = true,
                    () = &mut input => {}
                    () = &mut resizing => {}
                }
            }
        };
        if !drained {
            let _ = timeout(OUTPUT_GRACE, output).await;
        }
        Ok(code)
    }

    async fn start(&self, exec: &ExecSpec) -> Result<Box<dyn Running>> {
        let record = self.shared.record(&self.id)?;
        let request = ExecRequest {
            exec_id: self.exec_id.clone(),
            dir: self.dir.clone(),
            process: spec::exec_process(&record.process, &exec.command, exec.tty),
            tty: exec.tty,
            stdin: self.stdin,
            owner: record.owner(),
        };
        let tasks = self.shared.tasks_of(&record);
        tasks.exec(&self.shared, &self.id, request).await
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Copies until the end of either side.
async fn copy_output(source: Option<Receiver>, target: Option<Output>) {
    let Some(mut source) = source else { return };
    let mut target = target.unwrap_or_else(|| Box::new(tokio::io::sink()));
    if tokio::io::copy(&mut source, &mut target).await.is_err() {
        // Nobody listens any more; the process must not block on it.
        let _ = tokio::io::copy(&mut source, &mut tokio::io::sink()).await;
    }
    let _ = target.shutdown().await;
}

/// Copies until the end of either side.
async fn copy_input(mut source: Box<dyn AsyncRead + Send + Unpin>, fifo: &Path) {
    // Open for reading as well: it works whether the shim has opened its end yet or not.
    let opened: io::Result<Sender> = OpenOptions::new().read_write(true).open_sender(fifo);
    match opened {
        Ok(mut target) => {
            let _ = tokio::io::copy(&mut source, &mut target).await;
        }
        Err(error) => tracing::warn!(fifo = %fifo.display(), %error, "standard input is lost"),
    }
}

/// Keeps the first bytes that are written to it.
#[derive(Clone, Default)]
struct Capped(Arc<Mutex<Vec<u8>>>);

impl Capped {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl AsyncWrite for Capped {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut kept = self.0.lock();
        let room = EXEC_OUTPUT_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
