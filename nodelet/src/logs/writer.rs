//! The log writer: one process for a node that reads the fifos of all containers and writes
//! their log files.
//!
//! It is started by the agent and outlives it. It knows what to do from the containers'
//! directories ([`super::protocol::LOG_RECORD`]), so it can be killed and started again: what it has taken is
//! kept by [`super::journal`]. One thread, and a
//! buffer of [`READ_MAX`] bytes for each stream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::file::Limits;
use super::format::{Splitter, Stream};
use super::protocol::{LOG_RECORD, LogSpec, MESSAGE_MAX, Reply, Request, write_frame};
use super::sink::Sink;
use crate::runtime::sys;

/// Bytes read from a fifo at once.
const READ_MAX: usize = 32 * 1024;
/// Chunks that an attached client may fall behind by; then it misses some.
const ATTACH_BACKLOG: usize = 256;

/// The command line of the process, after the program and the subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// Directory with a directory for each container.
    pub containers: PathBuf,
    /// Rotation.
    pub limits: Limits,
}

// === impl Args ===

impl Args {
    /// As words of a command line.
    pub fn to_words(&self) -> [String; 3] {
        let Limits { file_bytes, files } = self.limits;
        [
            self.containers.display().to_string(),
            file_bytes.to_string(),
            files.to_string(),
        ]
    }

    /// From words of a command line.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let usage = "usage: log-writer CONTAINERS_DIR FILE_BYTES FILES (started by the node agent)";
        let [containers, file_bytes, files] = words else {
            return Err(usage.to_owned());
        };
        let number = |word: &String| {
            word.parse::<u64>()
                .map_err(|e| format!("{word}: {e}; {usage}"))
        };
        let limits = Limits {
            file_bytes: number(file_bytes)?,
            files: number(files)? as usize,
        };
        Ok(Self {
            containers: containers.into(),
            limits,
        })
    }
}

/// The process's main function: serves the socket that is its standard input until it is told to
/// end.
pub fn writer_main(words: &[String]) -> Result<(), String> {
    let args = Args::parse(words)?;
    // SAFETY: the agent starts this process with the socket as standard input, and nothing else
    // in it uses descriptor 0.
    let listener = StdListener::from(unsafe { OwnedFd::from_raw_fd(0) });
    serve(args, listener).map_err(|error| format!("log writer: {error}"))
}

/// Serves the socket until a client asks for the end.
pub fn serve(args: Args, listener: StdListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = UnixListener::from_std(listener)?;
        let writer = Rc::new(Writer {
            limits: args.limits,
            logs: RefCell::default(),
            end: Notify::new(),
        });
        writer.recover(&args.containers);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    connections.spawn_local(Rc::clone(&writer).serve_connection(stream));
                }
                Some(_) = connections.join_next() => {}
                () = writer.end.notified() => return Ok(()),
            }
        }
    })
}

/// All logs that are being written.
struct Writer {
    limits: Limits,
    logs: RefCell<HashMap<String, Log>>,
    end: Notify,
}

/// One container's log. Dropping it ends its tasks.
struct Log {
    pumps: Vec<mpsc::Sender<Flush>>,
    copies: broadcast::Sender<(Stream, Vec<u8>)>,
    _tasks: JoinSet<()>,
}

/// Asks a stream for an answer when its fifo is empty.
struct Flush {
    last: bool,
    done: oneshot::Sender<()>,
}

// === impl Writer ===

impl Writer {
    /// Takes up the work that another process left.
    fn recover(&self, containers: &Path) {
        let Ok(entries) = fs::read_dir(containers) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(record) = fs::read(entry.path().join(LOG_RECORD)) else {
                continue;
            };
            let opened = match serde_json::from_slice::<LogSpec>(&record) {
                Ok(spec) => self.open(&spec),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = opened {
                eprintln!(
                    "cannot take up the log of {}: {error}",
                    entry.path().display()
                );
            }
        }
    }

    fn open(&self, spec: &LogSpec) -> io::Result<()> {
        if self.logs.borrow().contains_key(&spec.id) {
            return Ok(());
        }
        let (sink, splitters) = match &spec.path {
            Some(path) => {
                let (sink, splitters) = Sink::open(path, &spec.dir, self.limits)?;
                (Some(sink), splitters)
            }
            None => (None, [Stream::Stdout, Stream::Stderr].map(Splitter::new)),
        };
        let sink = Rc::new(RefCell::new(sink));
        let (copies, _) = broadcast::channel(ATTACH_BACKLOG);
        let mut tasks = JoinSet::new();
        let mut pumps = Vec::new();
        for splitter in splitters {
            if spec.tty && splitter.stream() == Stream::Stderr {
                continue;
            }
            let (flush, flushes) = mpsc::channel(1);
            pumps.push(flush);
            let fifo = spec.dir.join(splitter.stream().name());
            let pump = Pump {
                fifo: sys::wake_on_input(open_fifo(&fifo)?.into())?,
                splitter,
                sink: Rc::clone(&sink),
                copies: copies.clone(),
            };
            tasks.spawn_local(pump.run(flushes));
        }
        self.logs.borrow_mut().insert(
            spec.id.clone(),
            Log {
                pumps,
                copies,
                _tasks: tasks,
            },
        );
        Ok(())
    }

    async fn flush(&self, id: &str, last: bool) {
        let pumps = match self.logs.borrow().get(id) {
            Some(log) => log.pumps.clone(),
            None => return,
        };
        for pump in pumps {
            let (done, answer) = oneshot::channel();
            // A stream that has ended has nothing left to write.
            if pump.send(Flush { last, done }).await.is_ok() {
                let _ = answer.await;
            }
        }
        if last {
            self.logs.borrow_mut().remove(id);
        }
    }

    async fn serve_connection(self: Rc<Self>, stream: UnixStream) {
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        loop {
            let mut line = String::new();
            let limited = (&mut input)
                .take(MESSAGE_MAX as u64)
                .read_line(&mut line)
                .await;
            if !matches!(limited, Ok(length) if length > 0) {
                return;
            }
            let reply = match serde_json::from_str::<Request>(&line) {
                Ok(Request::Open(spec)) => self.open(&spec).map_err(|error| {
                    format!("cannot write the log of container {}: {error}", spec.id)
                }),
                Ok(Request::Flush(id)) => {
                    self.flush(&id, false).await;
                    Ok(())
                }
                Ok(Request::Close(id)) => {
                    self.flush(&id, true).await;
                    Ok(())
                }
                Ok(Request::Attach(id)) => {
                    let copies = self
                        .logs
                        .borrow()
                        .get(&id)
                        .map(|log| log.copies.subscribe());
                    match copies {
                        Some(copies) => return send_copies(copies, &mut output).await,
                        None => Err(format!("container {id} writes no output any more")),
                    }
                }
                Ok(Request::Watch) => continue,
                Ok(Request::Shutdown) => {
                    self.end.notify_one();
                    Ok(())
                }
                Err(error) => Err(format!("the request is not understood: {error}")),
            };
            if send_reply(&mut output, reply).await.is_err() {
                return;
            }
        }
    }
}

async fn send_reply(
    output: &mut (impl tokio::io::AsyncWrite + Unpin),
    result: Result<(), String>,
) -> io::Result<()> {
    let reply = match result {
        Ok(()) => Reply::Done,
        Err(reason) => Reply::Failed(reason),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    output.write_all(&text).await
}

/// A client that is too slow misses some output; the container never waits for it.
async fn send_copies(
    mut copies: broadcast::Receiver<(Stream, Vec<u8>)>,
    output: &mut (impl tokio::io::AsyncWrite + Unpin),
) {
    if send_reply(output, Ok(())).await.is_err() {
        return;
    }
    loop {
        match copies.recv().await {
            Ok((stream, bytes)) => {
                if write_frame(output, stream, &bytes).await.is_err() {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Opened for writing as well: the fifo then has no end until we are told that it is complete, whoever comes
/// and goes at its other end.
pub(super) fn open_fifo(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK);
    options.open(path)
}

/// Moves one stream of one container from its fifo to the log file.
struct Pump {
    fifo: AsyncFd<OwnedFd>,
    splitter: Splitter,
    /// The container's log, if its output is kept.
    sink: Rc<RefCell<Option<Sink>>>,
    copies: broadcast::Sender<(Stream, Vec<u8>)>,
}

// === impl Pump ===

impl Pump {
    async fn run(mut self, mut flushes: mpsc::Receiver<Flush>) {
        let mut buffer = vec![0; READ_MAX];
        loop {
            let moved = tokio::select! {
                ready = self.fifo.readable() => match ready {
                    Ok(mut ready) => {
                        // That there is nothing is remembered until something comes.
                        match ready.try_io(|fifo| take(&self.sink, &self.splitter, fifo, &mut buffer)) {
                            Ok(Ok(length)) => length,
                            Ok(Err(_)) => return,
                            Err(_would_block) => continue,
                        }
                    }
                    Err(_) => return,
                },
                Some(flush) = flushes.recv() => {
                    self.drain(&mut buffer);
                    if flush.last {
                        let mut lines = Vec::new();
                        let now = Timestamp::now();
                        self.splitter.finish(now, &mut lines);
                        self.write(&lines, now);
                    }
                    let _ = flush.done.send(());
                    if flush.last {
                        return;
                    }
                    continue;
                }
            };
            self.accept(&buffer[..moved]);
        }
    }

    /// Takes until the fifo is empty, past the reactor, which may not have heard of the last bytes yet.
    fn drain(&mut self, buffer: &mut [u8]) {
        while let Ok(length @ 1..) = take(&self.sink, &self.splitter, &self.fifo, buffer) {
            self.accept(&buffer[..length]);
        }
    }

    fn accept(&mut self, bytes: &[u8]) {
        let now = Timestamp::now();
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 64);
        self.splitter.push(bytes, now, &mut lines);
        self.write(&lines, now);
        if self.copies.receiver_count() > 0 {
            let stream = self.splitter.stream();
            let _ = self.copies.send((stream, bytes.to_vec()));
        }
    }

    /// A full disk costs log lines, not the container.
    fn write(&self, lines: &[u8], now: Timestamp) {
        if let Some(sink) = self.sink.borrow_mut().as_mut()
            && let Err(error) = sink.write(&self.splitter, lines, now)
        {
            eprintln!("of {} bytes of log some may be lost: {error}", lines.len());
        }
    }
}

/// Takes what is in a fifo, on its way to the log if there is one.
fn take(
    sink: &RefCell<Option<Sink>>,
    splitter: &Splitter,
    fifo: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match sink.borrow_mut().as_mut() {
        Some(sink) => sink.take(splitter.stream(), fifo.get_ref().as_fd(), buffer),
        None => Ok(nix::unistd::read(fifo.get_ref(), buffer)?),
    }
}
