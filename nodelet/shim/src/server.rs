//! The process: connections and requests.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_child_subreaper;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::exec::Exec;
use crate::protocol::{ExecInput, ExecSpec, MESSAGE_MAX, Reply, Request};
use crate::reaper::Reaper;
use crate::take_over::take_over;
use crate::tasks::{Refusal, Tasks};
use crate::{client, sys};

/// After everything else when memory runs out: as other runtimes have it for their shims.
const OOM_SCORE_ADJ: &str = "-998";
/// Inputs to a command that wait to be taken.
const INPUTS_MAX: usize = 16;

/// The process's main function: serves the socket that is its standard input until it is told to
/// end.
pub fn shim_main(words: &[String]) -> Result<(), String> {
    let [containers, dir] = words else {
        return Err("usage: shim CONTAINERS_DIR DIR (started by the node agent)".to_owned());
    };
    let listener = StdListener::from(sys::given_socket());
    let served = serve(Path::new(containers), Path::new(dir), listener);
    served.map_err(|error| format!("shim: {error}"))
}

fn serve(containers: &Path, dir: &Path, listener: StdListener) -> io::Result<()> {
    set_child_subreaper(true)?;
    // Where the host does not let it be lowered, it stays.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let rootfs = private_mount_point(dir)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let reaper = Rc::new(Reaper::default());
        let tasks = Tasks::new(dir, rootfs, Rc::clone(&reaper));
        let end = Rc::new(Notify::new());
        let mut work = JoinSet::new();
        work.spawn_local(async move {
            if let Err(error) = reaper.run().await {
                eprintln!("cannot wait for children: {error}");
            }
        });
        take_over(&tasks, containers).await;
        let listener = UnixListener::from_std(listener)?;
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let connection = Connection::new(accepted?.0, &tasks, &end);
                    work.spawn_local(connection.serve());
                }
                Some(_) = work.join_next() => {}
                () = end.notified() => return Ok(()),
            }
        }
    })
}

/// The directory over which root file systems are mounted, in each container's own mount namespace.
/// The mount that it is on is private: what is mounted on it does not reach the host.
fn private_mount_point(dir: &Path) -> io::Result<PathBuf> {
    let path = client::rootfs_in(dir);
    fs::create_dir_all(&path)?;
    let none = None::<&str>;
    if mount(none, &path, none, MsFlags::MS_PRIVATE, none).is_err() {
        mount(Some(&path), &path, none, MsFlags::MS_BIND, none)?;
        mount(none, &path, none, MsFlags::MS_PRIVATE, none)?;
    }
    Ok(path)
}

/// A client, and its one request.
struct Connection {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
    tasks: Rc<Tasks>,
    end: Rc<Notify>,
}

// === impl Connection ===

impl Connection {
    fn new(stream: UnixStream, tasks: &Rc<Tasks>, end: &Rc<Notify>) -> Self {
        let (input, output) = stream.into_split();
        Self {
            input: BufReader::new(input),
            output,
            tasks: Rc::clone(tasks),
            end: Rc::clone(end),
        }
    }

    async fn serve(mut self) {
        let Some(line) = read_line(&mut self.input).await else {
            return;
        };
        let reply = match serde_json::from_str::<Request>(&line) {
            Ok(Request::Events) => return self.events().await,
            Ok(Request::Exec(spec)) => return self.exec(spec).await,
            Ok(request) => self.answer(request).await.unwrap_or_else(Reply::from),
            Err(error) => Reply::Failed(format!("the request is not understood: {error}")),
        };
        // A client that is gone asks again.
        let _ = send(&mut self.output, &reply).await;
    }

    async fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        let tasks = &self.tasks;
        Ok(match request {
            Request::Hello => Reply::Hello {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                tasks: tasks.all().len(),
            },
            Request::Start(spec) => Reply::Task(tasks.start(spec).await?),
            Request::Get(id) => Reply::Task(tasks.get(&id)?.seen()),
            Request::List => Reply::Tasks(tasks.all().iter().map(|task| task.seen()).collect()),
            Request::Wait(id) => {
                let task = tasks.get(&id)?;
                task.ended().await;
                Reply::Task(task.seen())
            }
            Request::Signal { id, signal, all } => {
                tasks.signal(&id, signal, all).await?;
                Reply::Done
            }
            Request::Update { id, file } => {
                tasks.update(&id, &file).await?;
                Reply::Done
            }
            Request::Resize { id, size } => {
                let resized = tasks.get(&id)?.resize(size);
                resized.map_err(|error| format!("the terminal of {id}: {error}"))?;
                Reply::Done
            }
            Request::CloseStdin(id) => {
                tasks.get(&id)?.close_stdin();
                Reply::Done
            }
            Request::Delete(id) => {
                tasks.delete(&id).await?;
                Reply::Done
            }
            Request::Shutdown => {
                self.end.notify_one();
                Reply::Done
            }
            Request::Events | Request::Exec(_) => unreachable!("served apart"),
        })
    }

    async fn events(mut self) {
        let mut ends = self.tasks.ends();
        loop {
            let ended = self.tasks.all();
            let ended = ended.iter().filter(|task| task.has_ended());
            for task in ended {
                let end = Reply::Ended(task.spec.id.clone());
                if send(&mut self.output, &end).await.is_err() {
                    return;
                }
            }
            if send(&mut self.output, &Reply::Done).await.is_err() {
                return;
            }
            // One that fell behind is told all again.
            if self.pass_on(&mut ends).await.is_err() {
                return;
            }
        }
    }

    /// Returns when some were missed.
    async fn pass_on(&mut self, ends: &mut broadcast::Receiver<String>) -> io::Result<()> {
        loop {
            tokio::select! {
                end = ends.recv() => match end {
                    Ok(id) => send(&mut self.output, &Reply::Ended(id)).await?,
                    Err(_) => return Ok(()),
                },
                _ = read_line(&mut self.input) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    async fn exec(mut self, spec: ExecSpec) {
        let exec = match Exec::start(&self.tasks, &spec).await {
            Ok(exec) => exec,
            Err(refusal) => {
                let _ = send(&mut self.output, &Reply::from(refusal)).await;
                return;
            }
        };
        let (inputs, taken) = mpsc::channel(INPUTS_MAX);
        if send(&mut self.output, &Reply::Started).await.is_err() {
            drop(inputs);
            exec.run(taken, &mut self.output).await;
            return;
        }
        let mut input = self.input;
        let reading = async move {
            while let Some(line) = read_line(&mut input).await {
                if let Ok(said) = serde_json::from_str::<ExecInput>(&line)
                    && inputs.send(said).await.is_err()
                {
                    return;
                }
            }
        };
        let reading = tokio::task::spawn_local(reading);
        let code = exec.run(taken, &mut self.output).await;
        reading.abort();
        let _ = send(&mut self.output, &Reply::Exited(code)).await;
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::Failed(reason) => Self::Failed(reason),
        }
    }
}

async fn read_line(input: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = String::new();
    let read = input.take(MESSAGE_MAX as u64).read_line(&mut line).await;
    matches!(read, Ok(length) if length > 0).then_some(line)
}

/// Sends one reply.
pub(crate) async fn send(output: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply)?;
    text.push(b'\n');
    output.write_all(&text).await
}
